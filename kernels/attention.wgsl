// y = softmax(scale q k^T) v for every head, without the score matrix: a running maximum, sum and weighted mean of values.
// q, y [batch, tokens, channels]; k, v [batch / share, keys, channels]; head h holds elements h d .. (h + 1) d, d = {{ d }}. y is
// overwritten. `scale` includes log2(e). An invocation makes one token of one head{{ ", elements in parts of " ~ part if part != d else "" }}; keys come in blocks of {{ block }}.
// `channels` counts vectors of {{ vector }}.
//% if sighted
// Tokens and keys are the same; a token sees the keys with which it shares a bit of sight [tokens], itself among them.
//% endif
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% set D = d // vector
//% set P = part // vector
//% set parts = (d + part - 1) // part
//% set whole = part == d
//% macro fma_dot(s, a, b)
//% if vector == 4
  {{ s }} = fma({{ a }}.x, {{ b }}.x, {{ s }});
  {{ s }} = fma({{ a }}.y, {{ b }}.y, {{ s }});
  {{ s }} = fma({{ a }}.z, {{ b }}.z, {{ s }});
  {{ s }} = fma({{ a }}.w, {{ b }}.w, {{ s }});
//% else
  {{ s }} = fma({{ a }}, {{ b }}, {{ s }});
//% endif
//% endmacro
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> k: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> v: array<{{ V }}>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ V }}>;
//% if sighted
@group(0) @binding(5) var<storage, read> sight: array<u32>;
//% endif
//% if staged
var<workgroup> ks: array<{{ V }}, {{ tile * D }}>;
var<workgroup> vs: array<{{ V }}, {{ tile * D }}>;
//% endif
const nothing = -1e30;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let token = group.x * {{ lanes }}u + lane;
  let head = group.y / {{ parts }}u * {{ D }}u;
  let offset = head + group.y % {{ parts }}u * {{ P }}u;
  let start = (group.z * sizes.tokens + min(token, sizes.tokens - 1u)) * sizes.channels;
  let shared_entry = group.z / sizes.share * sizes.keys;
//% if whole
//% for e in range(D)
  let q{{ e }} = q[start + head + {{ e }}u] * sizes.scale;
//% endfor
//% endif
//% for e in range(P)
  var sum{{ e }} = {{ V }}();
//% endfor
  var peak = nothing;
  var total = 0.0;
//% if sighted
  let seen = sight[min(token, sizes.tokens - 1u)];
//% endif
//% if staged
  for (var tile = 0u; tile < sizes.keys; tile += {{ tile }}u) {
    workgroupBarrier();
    for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
      let at = (shared_entry + min(tile + i / {{ D }}u, sizes.keys - 1u)) * sizes.channels + head + i % {{ D }}u;
      ks[i] = k[at];
      vs[i] = v[at];
    }
    workgroupBarrier();
    for (var key = tile; key < min(tile + {{ tile }}u, sizes.keys); key += {{ block }}u) {
//% else
  {
    for (var key = 0u; key < sizes.keys; key += {{ block }}u) {
//% endif
//% for j in range(block)
//% if staged
      let at{{ j }} = (key - tile + {{ j }}u) * {{ D }}u;
//% else
      let at{{ j }} = (shared_entry + min(key + {{ j }}u, sizes.keys - 1u)) * sizes.channels;
//% endif
      var s{{ j }} = 0.0;
//% endfor
//% if whole
//% for e in range(D)
//% for j in range(block)
      let k{{ j }}_{{ e }} = {{ "ks[at" ~ j ~ " + " ~ e ~ "u]" if staged else "k[at" ~ j ~ " + head + " ~ e ~ "u]" }};
{{ fma_dot("s" ~ j, "q" ~ e, "k" ~ j ~ "_" ~ e) }}
//% endfor
//% endfor
//% else
      for (var e = 0u; e < {{ D }}u; e++) {
        let qe = q[start + head + e] * sizes.scale;
//% for j in range(block)
        let k{{ j }} = k[at{{ j }} + head + e];
{{ fma_dot("s" ~ j, "qe", "k" ~ j) }}
//% endfor
      }
//% endif
      var now = peak;
//% for j in range(block)
//% if causal
      s{{ j }} = select(nothing, s{{ j }}, key + {{ j }}u < sizes.keys && key + {{ j }}u <= token);
//% elif sighted
      s{{ j }} = select(nothing, s{{ j }}, key + {{ j }}u < sizes.keys && (seen & sight[min(key + {{ j }}u, sizes.keys - 1u)]) != 0u);
//% else
      s{{ j }} = select(nothing, s{{ j }}, key + {{ j }}u < sizes.keys);
//% endif
      now = max(now, s{{ j }});
//% endfor
      let fade = exp2(peak - now);
      peak = now;
      total = total * fade;
//% for j in range(block)
      let p{{ j }} = exp2(s{{ j }} - now);
      total += p{{ j }};
//% endfor
//% for e in range(P)
      sum{{ e }} = sum{{ e }} * fade;
//% for j in range(block)
//% if staged
      sum{{ e }} = fma({{ V }}(p{{ j }}), vs[at{{ j }} + {{ e }}u], sum{{ e }});
//% elif whole
      sum{{ e }} = fma({{ V }}(p{{ j }}), v[at{{ j }} + offset + {{ e }}u], sum{{ e }});
//% else
      sum{{ e }} = fma({{ V }}(p{{ j }}), v[at{{ j }} + min(offset + {{ e }}u, head + {{ D - 1 }}u)], sum{{ e }});
//% endif
//% endfor
//% endfor
    }
  }
  if (token >= sizes.tokens) { return; }
//% for e in range(P)
//% if whole
  y[start + offset + {{ e }}u] = sum{{ e }} / total;
//% else
  if (offset + {{ e }}u < head + {{ D }}u) { y[start + offset + {{ e }}u] = sum{{ e }} / total; }
//% endif
//% endfor
}
