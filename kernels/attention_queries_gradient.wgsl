// y = scale * sum over the keys of ds k, ds = p (dy . v - delta), p = exp(scale q . k - lse):
// attention's gradient to its queries.
// q, dy, y [batch, tokens, channels]; k, v [batch / share, keys, channels]; rows
// [batch, tokens, heads, 2]: lse, delta. Head h holds elements h d .. (h + 1) d, d = {{ d }}. y is
// overwritten. An invocation makes {{ per_lane }} tokens of one
// head{{ ", elements in parts of " ~ part if part != d }}; keys come in blocks of
// {{ block }}{{ ", staged in workgroup memory" if held }}. `channels` counts vectors of
// {{ vector }}.
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
  let head = group.y / {{ parts }}u * {{ D }}u;
  let offset = group.y % {{ parts }}u * {{ P }}u;
  let shared_entry = group.z / sizes.share * sizes.keys;
  let scale = sizes.scale * log2_e;
//% for r in range(per_lane)
  let token{{ r }} = group.x * {{ lanes * per_lane }}u + {{ r * lanes }}u + lane;
  let row{{ r }} = group.z * sizes.tokens + min(token{{ r }}, sizes.tokens - 1u);
  let start{{ r }} = row{{ r }} * sizes.channels + head;
  let kept{{ r }} = (row{{ r }} * sizes.heads + group.y / {{ parts }}u) * 2u;
  let lse{{ r }} = rows[kept{{ r }}] * log2_e;
  let delta{{ r }} = rows[kept{{ r }} + 1u];
//% if held
//% for e in range(D)
  let q{{ r }}_{{ e }} = q[start{{ r }} + {{ e }}u] * scale;
  let d{{ r }}_{{ e }} = dy[start{{ r }} + {{ e }}u];
//% endfor
//% endif
//% for e in range(P)
  var sum{{ r }}_{{ e }} = {{ V }}();
//% endfor
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
      let at = (shared_entry + min(tile + i / {{ D }}u, sizes.keys - 1u)) * sizes.channels + head
        + i % {{ D }}u;
      ks[i] = k[at];
      vs[i] = v[at];
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
      var s{{ r }}_{{ j }} = -lse{{ r }};
      var g{{ r }}_{{ j }} = -delta{{ r }};
//% endfor
//% endfor
//% if held
//% for e in range(D)
//% for j in range(block)
      let k{{ j }}_{{ e }} = {{ "ks" if held else "k" }}[at{{ j }} + {{ e }}u];
      let v{{ j }}_{{ e }} = {{ "vs" if held else "v" }}[at{{ j }} + {{ e }}u];
//% for r in range(per_lane)
{{ dot.add("s" ~ r ~ "_" ~ j, "q" ~ r ~ "_" ~ e, "k" ~ j ~ "_" ~ e, vector) }}
{{ dot.add("g" ~ r ~ "_" ~ j, "d" ~ r ~ "_" ~ e, "v" ~ j ~ "_" ~ e, vector) }}
//% endfor
//% endfor
//% endfor
//% else
      for (var e = 0u; e < {{ D }}u; e++) {
//% for r in range(per_lane)
        let qe{{ r }} = q[start{{ r }} + e] * scale;
        let de{{ r }} = dy[start{{ r }} + e];
//% endfor
//% for j in range(block)
        let k{{ j }} = k[at{{ j }} + e];
        let v{{ j }} = v[at{{ j }} + e];
//% for r in range(per_lane)
{{ dot.add("s" ~ r ~ "_" ~ j, "qe" ~ r, "k" ~ j, vector) }}
{{ dot.add("g" ~ r ~ "_" ~ j, "de" ~ r, "v" ~ j, vector) }}
//% endfor
//% endfor
      }
//% endif
//% for r in range(per_lane)
//% for j in range(block)
      let seen{{ r }}_{{ j }} =
        key + {{ j }}u < sizes.keys{{ " && key + " ~ j ~ "u <= token" ~ r if causal }};
      let ds{{ r }}_{{ j }} =
        select(0.0, exp2(min(s{{ r }}_{{ j }}, 1.0)) * g{{ r }}_{{ j }}, seen{{ r }}_{{ j }});
//% endfor
//% endfor
//% for e in range(P)
//% for j in range(block)
//% if not held
      let k{{ j }}_{{ e }} = k[at{{ j }} + min(offset + {{ e }}u, {{ D - 1 }}u)];
//% endif
//% for r in range(per_lane)
      sum{{ r }}_{{ e }} = fma({{ V }}(ds{{ r }}_{{ j }}), k{{ j }}_{{ e }}, sum{{ r }}_{{ e }});
//% endfor
//% endfor
//% endfor
    }
  }
//% for r in range(per_lane)
  if (token{{ r }} < sizes.tokens) {
//% for e in range(P)
//% if held
    y[start{{ r }} + {{ e }}u] = sum{{ r }}_{{ e }} * sizes.scale;
//% else
    if (offset + {{ e }}u < {{ D }}u) {
      y[start{{ r }} + offset + {{ e }}u] = sum{{ r }}_{{ e }} * sizes.scale;
    }
//% endif
//% endfor
  }
//% endfor
}
