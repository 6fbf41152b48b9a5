// What attention's backward pass keeps of every row of scores: rows[.., 0] = log(sum of exp(scale q
// k^T)), rows[.., 1] = y . dy.
// q, y, dy [batch, tokens, channels]; k [batch / share, keys, channels]; head h holds elements h d
// .. (h + 1) d, d = {{ d }}. rows [batch, tokens, heads, 2] is overwritten. `scale` includes
// log2(e). An invocation makes {{ per_lane }} tokens of one head; keys come in blocks of
// {{ block }}{{ ", staged in workgroup memory" if held }}. `channels` counts vectors of
// {{ vector }}.
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
  let head = group.y * {{ D }}u;
  let shared_entry = group.z / sizes.share * sizes.keys;
//% for r in range(per_lane)
  let token{{ r }} = group.x * {{ lanes * per_lane }}u + {{ r * lanes }}u + lane;
  let row{{ r }} = group.z * sizes.tokens + min(token{{ r }}, sizes.tokens - 1u);
  let start{{ r }} = row{{ r }} * sizes.channels + head;
//% if held
//% for e in range(D)
  let q{{ r }}_{{ e }} = q[start{{ r }} + {{ e }}u] * sizes.scale;
//% endfor
//% endif
  var peak{{ r }} = nothing;
  var total{{ r }} = 0.0;
//% endfor
//% if causal
  // later ones are seen by no token of this group
  let keys = min(sizes.keys, (group.x + 1u) * {{ lanes * per_lane }}u);
//% else
  let keys = sizes.keys;
//% endif
  for (var tile = 0u; tile < keys; tile += {{ tile }}u) {
//% if held
    workgroupBarrier();
    for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
      ks[i] = k[(shared_entry + min(tile + i / {{ D }}u, sizes.keys - 1u)) * sizes.channels + head
        + i % {{ D }}u];
    }
    workgroupBarrier();
//% endif
    for (var key = tile; key < min(tile + {{ tile }}u, keys); key += {{ block }}u) {
//% for j in range(block)
//% if held
      let at{{ j }} = (key - tile + {{ j }}u) * {{ D }}u;
//% else
      let at{{ j }} = (shared_entry + min(key + {{ j }}u, sizes.keys - 1u)) * sizes.channels + head;
//% endif
//% for r in range(per_lane)
      var s{{ r }}_{{ j }} = 0.0;
//% endfor
//% endfor
//% if held
//% for e in range(D)
//% for j in range(block)
      let k{{ j }}_{{ e }} = {{ "ks" if held else "k" }}[at{{ j }} + {{ e }}u];
//% for r in range(per_lane)
{{ dot.add("s" ~ r ~ "_" ~ j, "q" ~ r ~ "_" ~ e, "k" ~ j ~ "_" ~ e, vector) }}
//% endfor
//% endfor
//% endfor
//% else
      for (var e = 0u; e < {{ D }}u; e++) {
//% for r in range(per_lane)
        let qe{{ r }} = q[start{{ r }} + e] * sizes.scale;
//% endfor
//% for j in range(block)
        let k{{ j }} = k[at{{ j }} + e];
//% for r in range(per_lane)
{{ dot.add("s" ~ r ~ "_" ~ j, "qe" ~ r, "k" ~ j, vector) }}
//% endfor
//% endfor
      }
//% endif
//% for r in range(per_lane)
      var now{{ r }} = peak{{ r }};
//% for j in range(block)
//% set s = "s" ~ r ~ "_" ~ j
      {{ s }} = select(
        nothing, {{ s }},
        key + {{ j }}u < sizes.keys{{ " && key + " ~ j ~ "u <= token" ~ r if causal }});
      now{{ r }} = max(now{{ r }}, {{ s }});
//% endfor
      total{{ r }} = total{{ r }} * exp2(peak{{ r }} - now{{ r }});
      peak{{ r }} = now{{ r }};
//% for j in range(block)
      total{{ r }} += exp2(s{{ r }}_{{ j }} - now{{ r }});
//% endfor
//% endfor
    }
  }
//% for r in range(per_lane)
  if (token{{ r }} < sizes.tokens) {
    var delta = 0.0;
    for (var e = 0u; e < {{ D }}u; e++) {
      let a = y[start{{ r }} + e];
      let b = dy[start{{ r }} + e];
{{ dot.add("delta", "a", "b", vector) }}
    }
    let to = (row{{ r }} * sizes.heads + group.y) * 2u;
    rows[to] = (peak{{ r }} + log2(total{{ r }})) * 0.6931471805599453;
    rows[to + 1u] = delta;
  }
//% endfor
}
