// y[0] = scale * sum over the queries of ds q, y[1] = sum of p dy: attention's gradient to its keys and values, p and ds as in
// attention_queries_gradient.wgsl. q, dy [batch, tokens, channels]; k, v [batch / share, keys, channels]; rows [batch, tokens, heads,
// 2]: lse, delta. y [2, batch / share, keys, channels] is overwritten. Head h holds elements h d .. (h + 1) d, d = {{ d }}. An invocation
// makes one key and value of one head{{ ", elements in parts of " ~ part if part != d }}; the queries of all entries that share it come in blocks of {{ block }}{{ ",
// staged in workgroup memory" if held }}. `channels` counts vectors of {{ vector }}.
//% import "shared/dot" as dot
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% set D = d // vector
//% set P = part // vector
//% set parts = (d + part - 1) // part
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, heads: u32, entries: u32, scale: f32 }
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
  let key = group.x * {{ lanes }}u + lane;
  let head_number = group.y / {{ parts }}u;
  let head = head_number * {{ D }}u;
  let offset = group.y % {{ parts }}u * {{ P }}u;
  let start = (group.z * sizes.keys + min(key, sizes.keys - 1u)) * sizes.channels + head;
  let queries = sizes.share * sizes.tokens;
  let first = group.z * queries;
  let scale = sizes.scale * log2_e;
//% if held
//% for e in range(D)
  let k{{ e }} = k[start + {{ e }}u] * scale;
  let v{{ e }} = v[start + {{ e }}u];
//% endfor
//% endif
//% for e in range(P)
  var dk{{ e }} = {{ V }}();
  var dv{{ e }} = {{ V }}();
//% endfor
  for (var tile = 0u; tile < queries; tile += {{ tile }}u) {
//% if held
    workgroupBarrier();
    for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
      let at = (first + min(tile + i / {{ D }}u, queries - 1u)) * sizes.channels + head + i % {{ D }}u;
      qs[i] = q[at];
      ds[i] = dy[at];
    }
    workgroupBarrier();
//% endif
    for (var query = tile; query < min(tile + {{ tile }}u, queries); query += {{ block }}u) {
//% for j in range(block)
      let row{{ j }} = first + min(query + {{ j }}u, queries - 1u);
      let kept{{ j }} = rows[row{{ j }} * sizes.heads + head_number];
      var s{{ j }} = -kept{{ j }}.x * log2_e;
      var g{{ j }} = -kept{{ j }}.y;
//% if held
      let at{{ j }} = (query - tile + {{ j }}u) * {{ D }}u;
//% else
      let at{{ j }} = row{{ j }} * sizes.channels + head;
//% endif
//% endfor
//% if held
//% for e in range(D)
//% for j in range(block)
      let q{{ j }}_{{ e }} = qs[at{{ j }} + {{ e }}u];
      let d{{ j }}_{{ e }} = ds[at{{ j }} + {{ e }}u];
{{ dot.add("s" ~ j, "k" ~ e, "q" ~ j ~ "_" ~ e, vector) }}
{{ dot.add("g" ~ j, "v" ~ e, "d" ~ j ~ "_" ~ e, vector) }}
//% endfor
//% endfor
//% else
      for (var e = 0u; e < {{ D }}u; e++) {
        let ke = k[start + e] * scale;
        let ve = v[start + e];
//% for j in range(block)
        let q{{ j }} = q[at{{ j }} + e];
        let d{{ j }} = dy[at{{ j }} + e];
{{ dot.add("s" ~ j, "ke", "q" ~ j, vector) }}
{{ dot.add("g" ~ j, "ve", "d" ~ j, vector) }}
//% endfor
      }
//% endif
//% for j in range(block)
      let seen{{ j }} = query + {{ j }}u < queries{{ " && (query + " ~ j ~ "u) % sizes.tokens >= key" if causal }};
      let p{{ j }} = select(0.0, exp2(min(s{{ j }}, 1.0)), seen{{ j }});
      let w{{ j }} = p{{ j }} * g{{ j }};
//% endfor
//% for e in range(P)
//% for j in range(block)
//% if held
      dk{{ e }} = fma({{ V }}(w{{ j }}), qs[at{{ j }} + {{ e }}u], dk{{ e }});
      dv{{ e }} = fma({{ V }}(p{{ j }}), ds[at{{ j }} + {{ e }}u], dv{{ e }});
//% else
      dk{{ e }} = fma({{ V }}(w{{ j }}), q[at{{ j }} + min(offset + {{ e }}u, {{ D - 1 }}u)], dk{{ e }});
      dv{{ e }} = fma({{ V }}(p{{ j }}), dy[at{{ j }} + min(offset + {{ e }}u, {{ D - 1 }}u)], dv{{ e }});
//% endif
//% endfor
//% endfor
    }
  }
  if (key >= sizes.keys) { return; }
  let values = sizes.entries * sizes.keys * sizes.channels;
//% for e in range(P)
//% if held
  y[start + {{ e }}u] = dk{{ e }} * sizes.scale;
  y[values + start + {{ e }}u] = dv{{ e }};
//% else
  if (offset + {{ e }}u < {{ D }}u) {
    y[start + offset + {{ e }}u] = dk{{ e }} * sizes.scale;
    y[values + start + offset + {{ e }}u] = dv{{ e }};
  }
//% endif
//% endfor
}
