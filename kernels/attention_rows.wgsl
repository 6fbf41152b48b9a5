// What attention's backward pass keeps of every row of scores: rows[.., 0] = log(sum of exp(scale q k^T)), rows[.., 1] = y . dy.
// q, y, dy [batch, tokens, channels]; k [batch / share, keys, channels]; head h holds elements h d .. (h + 1) d, d = {{ d }}. rows
// [batch, tokens, heads, 2] is overwritten. `scale` includes log2(e). An invocation makes one token of one head; keys come in
// blocks of {{ block }}{{ ", staged in workgroup memory" if held }}. `channels` counts vectors of {{ vector }}.
//% import "shared/dot" as dot
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% set D = d // vector
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, heads: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> k: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> y: array<{{ V }}>;
@group(0) @binding(4) var<storage, read> dy: array<{{ V }}>;
@group(0) @binding(5) var<storage, read_write> rows: array<f32>;
//% if held
var<workgroup> ks: array<{{ V }}, {{ tile * D }}>;
//% endif
const nothing = -1e30;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let token = group.x * {{ lanes }}u + lane;
  let head = group.y * {{ D }}u;
  let row = group.z * sizes.tokens + min(token, sizes.tokens - 1u);
  let start = row * sizes.channels + head;
  let shared_entry = group.z / sizes.share * sizes.keys;
//% if held
//% for e in range(D)
  let q{{ e }} = q[start + {{ e }}u] * sizes.scale;
//% endfor
//% endif
  var peak = nothing;
  var total = 0.0;
  for (var tile = 0u; tile < sizes.keys; tile += {{ tile }}u) {
//% if held
    workgroupBarrier();
    for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
      ks[i] = k[(shared_entry + min(tile + i / {{ D }}u, sizes.keys - 1u)) * sizes.channels + head + i % {{ D }}u];
    }
    workgroupBarrier();
//% endif
    for (var key = tile; key < min(tile + {{ tile }}u, sizes.keys); key += {{ block }}u) {
//% for j in range(block)
      var s{{ j }} = 0.0;
//% if held
      let at{{ j }} = (key - tile + {{ j }}u) * {{ D }}u;
//% else
      let at{{ j }} = (shared_entry + min(key + {{ j }}u, sizes.keys - 1u)) * sizes.channels + head;
//% endif
//% endfor
//% if held
//% for e in range(D)
//% for j in range(block)
      let k{{ j }}_{{ e }} = ks[at{{ j }} + {{ e }}u];
{{ dot.add("s" ~ j, "q" ~ e, "k" ~ j ~ "_" ~ e, vector) }}
//% endfor
//% endfor
//% else
      for (var e = 0u; e < {{ D }}u; e++) {
        let qe = q[start + e] * sizes.scale;
//% for j in range(block)
        let k{{ j }} = k[at{{ j }} + e];
{{ dot.add("s" ~ j, "qe", "k" ~ j, vector) }}
//% endfor
      }
//% endif
      var now = peak;
//% for j in range(block)
      s{{ j }} = select(nothing, s{{ j }}, key + {{ j }}u < sizes.keys{{ " && key + " ~ j ~ "u <= token" if causal }});
      now = max(now, s{{ j }});
//% endfor
      total = total * exp2(peak - now);
      peak = now;
//% for j in range(block)
      total += exp2(s{{ j }} - now);
//% endfor
    }
  }
  if (token >= sizes.tokens) { return; }
  var delta = 0.0;
  for (var e = 0u; e < {{ D }}u; e++) {
    let a = y[start + e];
    let b = dy[start + e];
{{ dot.add("delta", "a", "b", vector) }}
  }
  let to = (row * sizes.heads + group.y) * 2u;
  rows[to] = (peak + log2(total)) * 0.6931471805599453;
  rows[to + 1u] = delta;
}
