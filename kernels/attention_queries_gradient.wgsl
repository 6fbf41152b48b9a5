// y = scale * sum over the keys of ds k, ds = p (dy . v - delta), p = exp(scale q . k - lse): attention's gradient to its queries.
// q, dy, y [batch, tokens, channels]; k, v [batch / share, keys, channels]; rows [batch, tokens, heads, 2]: lse, delta. Head h holds
// elements h d .. (h + 1) d, d = {{ d }}. y is overwritten. An invocation makes one token of one head{{ ", elements in parts of " ~ part if part != d }}; keys
// come in blocks of {{ block }}{{ ", staged in workgroup memory" if held }}. `channels` counts vectors of {{ vector }}.
//% import "shared/dot" as dot
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% set D = d // vector
//% set P = part // vector
//% set parts = (d + part - 1) // part
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, heads: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> k: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> v: array<{{ V }}>;
@group(0) @binding(4) var<storage, read> dy: array<{{ V }}>;
@group(0) @binding(5) var<storage, read> rows: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<{{ V }}>;
//% if held
var<workgroup> ks: array<{{ V }}, {{ tile * D }}>;
var<workgroup> vs: array<{{ V }}, {{ tile * D }}>;
//% endif
const log2_e = 1.4426950408889634;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let token = group.x * {{ lanes }}u + lane;
  let head = group.y / {{ parts }}u * {{ D }}u;
  let offset = group.y % {{ parts }}u * {{ P }}u;
  let row = group.z * sizes.tokens + min(token, sizes.tokens - 1u);
  let start = row * sizes.channels + head;
  let shared_entry = group.z / sizes.share * sizes.keys;
  let kept = (row * sizes.heads + group.y / {{ parts }}u) * 2u;
  let lse = rows[kept] * log2_e;
  let delta = rows[kept + 1u];
  let scale = sizes.scale * log2_e;
//% if held
//% for e in range(D)
  let q{{ e }} = q[start + {{ e }}u] * scale;
  let d{{ e }} = dy[start + {{ e }}u];
//% endfor
//% endif
//% for e in range(P)
  var sum{{ e }} = {{ V }}();
//% endfor
  for (var tile = 0u; tile < sizes.keys; tile += {{ tile }}u) {
//% if held
    workgroupBarrier();
    for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
      let at = (shared_entry + min(tile + i / {{ D }}u, sizes.keys - 1u)) * sizes.channels + head + i % {{ D }}u;
      ks[i] = k[at];
      vs[i] = v[at];
    }
    workgroupBarrier();
//% endif
    for (var key = tile; key < min(tile + {{ tile }}u, sizes.keys); key += {{ block }}u) {
//% for j in range(block)
      var s{{ j }} = -lse;
      var g{{ j }} = -delta;
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
      let v{{ j }}_{{ e }} = vs[at{{ j }} + {{ e }}u];
{{ dot.add("s" ~ j, "q" ~ e, "k" ~ j ~ "_" ~ e, vector) }}
{{ dot.add("g" ~ j, "d" ~ e, "v" ~ j ~ "_" ~ e, vector) }}
//% endfor
//% endfor
//% else
      for (var e = 0u; e < {{ D }}u; e++) {
        let qe = q[start + e] * scale;
        let de = dy[start + e];
//% for j in range(block)
        let k{{ j }} = k[at{{ j }} + e];
        let v{{ j }} = v[at{{ j }} + e];
{{ dot.add("s" ~ j, "qe", "k" ~ j, vector) }}
{{ dot.add("g" ~ j, "de", "v" ~ j, vector) }}
//% endfor
      }
//% endif
//% for j in range(block)
      let seen{{ j }} = key + {{ j }}u < sizes.keys{{ " && key + " ~ j ~ "u <= token" if causal }};
      let ds{{ j }} = select(0.0, exp2(min(s{{ j }}, 1.0)) * g{{ j }}, seen{{ j }});
//% endfor
//% for e in range(P)
//% for j in range(block)
//% if held
      sum{{ e }} = fma({{ V }}(ds{{ j }}), ks[at{{ j }} + {{ e }}u], sum{{ e }});
//% else
      sum{{ e }} = fma({{ V }}(ds{{ j }}), k[at{{ j }} + min(offset + {{ e }}u, {{ D - 1 }}u)], sum{{ e }});
//% endif
//% endfor
//% endfor
    }
  }
  if (token >= sizes.tokens) { return; }
//% for e in range(P)
//% if held
  y[start + {{ e }}u] = sum{{ e }} * sizes.scale;
//% else
  if (offset + {{ e }}u < {{ D }}u) { y[start + offset + {{ e }}u] = sum{{ e }} * sizes.scale; }
//% endif
//% endfor
}
