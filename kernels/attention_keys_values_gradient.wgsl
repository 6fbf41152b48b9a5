// y[0] = scale * sum over the queries of ds q, y[1] = sum of p dy: attention's gradient to its keys
// and values, p and ds as in attention_queries_gradient.wgsl. q, dy [batch, tokens, channels]; k, v
// [batch / share, keys, channels]; rows [batch, tokens, heads, 2]: lse, delta. y
// [2, batch / share, keys, channels] is overwritten. Head h holds elements h d .. (h + 1) d, d =
// {{ d }}. An invocation makes {{ per_lane }} keys and values of one
// head{{ ", elements in parts of " ~ part if part != d }}; the queries of all entries that share
// them come in blocks of {{ block }}{{ ", staged in workgroup memory" if held }}. `channels` counts
// vectors of {{ vector }}.
//% import "shared/dot" as dot
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% set D = d // vector
//% set P = part // vector
//% set parts = (d + part - 1) // part
struct Sizes {
  tokens: u32,
  keys: u32,
  channels: u32,
  share: u32,
  heads: u32,
  entries: u32,
  scale: f32,
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> k: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> v: array<{{ V }}>;
@group(0) @binding(4) var<storage, read> dy: array<{{ V }}>;
@group(0) @binding(5) var<storage, read> rows: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<{{ V }}>;
//% if held
var<workgroup> qs: array<{{ V }}, {{ tile * D }}>;
var<workgroup> ds: array<{{ V }}, {{ tile * D }}>;
//% endif
const log2_e = 1.4426950408889634;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let head_number = group.y / {{ parts }}u;
  let head = head_number * {{ D }}u;
  let offset = group.y % {{ parts }}u * {{ P }}u;
  let queries = sizes.share * sizes.tokens;
  let first = group.z * queries;
  let scale = sizes.scale * log2_e;
//% for r in range(per_lane)
  let key{{ r }} = group.x * {{ lanes * per_lane }}u + {{ r * lanes }}u + lane;
  let start{{ r }} =
    (group.z * sizes.keys + min(key{{ r }}, sizes.keys - 1u)) * sizes.channels + head;
//% if held
//% for e in range(D)
  let k{{ r }}_{{ e }} = k[start{{ r }} + {{ e }}u] * scale;
  let v{{ r }}_{{ e }} = v[start{{ r }} + {{ e }}u];
//% endfor
//% endif
//% for e in range(P)
  var dk{{ r }}_{{ e }} = {{ V }}();
  var dv{{ r }}_{{ e }} = {{ V }}();
//% endfor
//% endfor
//% if causal
  // Earlier queries see no key of this group; where entries share keys, later ones begin anew.
  let earliest =
    select(0u, group.x * {{ lanes * per_lane }}u / {{ tile }}u * {{ tile }}u, sizes.share == 1u);
//% else
  const earliest = 0u;
//% endif
  for (var tile = earliest; tile < queries; tile += {{ tile }}u) {
//% if held
    workgroupBarrier();
    for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
      let at =
        (first + min(tile + i / {{ D }}u, queries - 1u)) * sizes.channels + head + i % {{ D }}u;
      qs[i] = q[at];
      ds[i] = dy[at];
    }
    workgroupBarrier();
//% endif
    for (var query = tile; query < min(tile + {{ tile }}u, queries); query += {{ block }}u) {
//% for j in range(block)
      let row{{ j }} = first + min(query + {{ j }}u, queries - 1u);
      let kept{{ j }} = rows[row{{ j }} * sizes.heads + head_number];
//% for r in range(per_lane)
      var s{{ r }}_{{ j }} = -kept{{ j }}.x * log2_e;
      var g{{ r }}_{{ j }} = -kept{{ j }}.y;
//% endfor
//% if held
      let at{{ j }} = (query - tile + {{ j }}u) * {{ D }}u;
//% else
      let at{{ j }} = row{{ j }} * sizes.channels + head;
//% endif
//% endfor
//% if held
//% for e in range(D)
//% for j in range(block)
      let q{{ j }}_{{ e }} = {{ "qs" if held else "q" }}[at{{ j }} + {{ e }}u];
      let d{{ j }}_{{ e }} = {{ "ds" if held else "dy" }}[at{{ j }} + {{ e }}u];
//% for r in range(per_lane)
{{ dot.add("s" ~ r ~ "_" ~ j, "k" ~ r ~ "_" ~ e, "q" ~ j ~ "_" ~ e, vector) }}
{{ dot.add("g" ~ r ~ "_" ~ j, "v" ~ r ~ "_" ~ e, "d" ~ j ~ "_" ~ e, vector) }}
//% endfor
//% endfor
//% endfor
//% else
      for (var e = 0u; e < {{ D }}u; e++) {
//% for r in range(per_lane)
        let ke{{ r }} = k[start{{ r }} + e] * scale;
        let ve{{ r }} = v[start{{ r }} + e];
//% endfor
//% for j in range(block)
        let q{{ j }} = q[at{{ j }} + e];
        let d{{ j }} = dy[at{{ j }} + e];
//% for r in range(per_lane)
{{ dot.add("s" ~ r ~ "_" ~ j, "ke" ~ r, "q" ~ j, vector) }}
{{ dot.add("g" ~ r ~ "_" ~ j, "ve" ~ r, "d" ~ j, vector) }}
//% endfor
//% endfor
      }
//% endif
//% for r in range(per_lane)
//% for j in range(block)
      let seen{{ r }}_{{ j }} = query
        + {{ j }}u < queries{{ " && (query + " ~ j ~ "u) % sizes.tokens >= key" ~ r if causal }};
      let p{{ r }}_{{ j }} = select(0.0, exp2(min(s{{ r }}_{{ j }}, 1.0)), seen{{ r }}_{{ j }});
      let w{{ r }}_{{ j }} = p{{ r }}_{{ j }} * g{{ r }}_{{ j }};
//% endfor
//% endfor
//% for e in range(P)
//% for j in range(block)
//% if not held
      let q{{ j }}_{{ e }} = q[at{{ j }} + min(offset + {{ e }}u, {{ D - 1 }}u)];
      let d{{ j }}_{{ e }} = dy[at{{ j }} + min(offset + {{ e }}u, {{ D - 1 }}u)];
//% endif
//% for r in range(per_lane)
      dk{{ r }}_{{ e }} = fma({{ V }}(w{{ r }}_{{ j }}), q{{ j }}_{{ e }}, dk{{ r }}_{{ e }});
      dv{{ r }}_{{ e }} = fma({{ V }}(p{{ r }}_{{ j }}), d{{ j }}_{{ e }}, dv{{ r }}_{{ e }});
//% endfor
//% endfor
//% endfor
    }
  }
  let values = sizes.entries * sizes.keys * sizes.channels;
//% for r in range(per_lane)
  if (key{{ r }} < sizes.keys) {
//% for e in range(P)
//% if held
    y[start{{ r }} + {{ e }}u] = dk{{ r }}_{{ e }} * sizes.scale;
    y[values + start{{ r }} + {{ e }}u] = dv{{ r }}_{{ e }};
//% else
    if (offset + {{ e }}u < {{ D }}u) {
      y[start{{ r }} + offset + {{ e }}u] = dk{{ r }}_{{ e }} * sizes.scale;
      y[values + start{{ r }} + offset + {{ e }}u] = dv{{ r }}_{{ e }};
    }
//% endif
//% endfor
  }
//% endfor
}
