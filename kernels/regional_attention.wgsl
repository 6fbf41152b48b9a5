// y = sum over prompts of weight(token, prompt) softmax(scale q k^T) v, for every head, k and v those of the prompt alone; without the score matrix.
// q, y [batch, tokens, channels]; k, v [batch / share, keys, channels], prompts one after another; head h holds elements h d .. (h + 1) d, d = {{ d }}.
// order [tokens]: in which order invocations take the tokens; weights [tokens, prompts], 0 for prompts that a token does not read;
// spans [tokens / {{ group }}, prompts, 2]: for every {{ group }} tokens of that order, the first and the end of the keys of each prompt, the same number twice
// where none of them reads it. y is overwritten; 0 where all weights are. `scale` includes log2(e). An invocation makes one token of
// one head{{ ", elements in parts of " ~ part if part != d else "" }}; keys come in blocks of {{ block }}. `channels` counts vectors of {{ vector }}.
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
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, prompts: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> k: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> v: array<{{ V }}>;
@group(0) @binding(4) var<storage, read> order: array<u32>;
@group(0) @binding(5) var<storage, read> weights: array<f32>;
@group(0) @binding(6) var<storage, read> spans: array<u32>;
@group(0) @binding(7) var<storage, read_write> y: array<{{ V }}>;
//% if staged
var<workgroup> ks: array<{{ V }}, {{ tile * D }}>;
var<workgroup> vs: array<{{ V }}, {{ tile * D }}>;
//% endif
const nothing = -1e30;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let slot = group.x * {{ lanes }}u + lane;
  let token = min(order[min(slot, sizes.tokens - 1u)], sizes.tokens - 1u);
  let head = group.y / {{ parts }}u * {{ D }}u;
  let offset = head + group.y % {{ parts }}u * {{ P }}u;
  let start = (group.z * sizes.tokens + token) * sizes.channels;
  let shared_entry = group.z / sizes.share * sizes.keys;
//% if whole
//% for e in range(D)
  let q{{ e }} = q[start + head + {{ e }}u] * sizes.scale;
//% endfor
//% endif
  var written = false;
  for (var prompt = 0u; prompt < sizes.prompts; prompt++) {
    let span = (group.x * {{ lanes }}u / {{ group }}u * sizes.prompts + prompt) * 2u;
    let first = spans[span];
    let end = min(spans[span + 1u], sizes.keys);
    if (first >= end) { continue; }
    var weight = weights[token * sizes.prompts + prompt];
    if (slot >= sizes.tokens) { weight = 0.0; }
//% for e in range(P)
    var sum{{ e }} = {{ V }}();
//% endfor
    var peak = nothing;
    var total = 0.0;
//% if staged
    for (var tile = first; tile < end; tile += {{ tile }}u) {
      workgroupBarrier();
      for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
        let at = (shared_entry + min(tile + i / {{ D }}u, end - 1u)) * sizes.channels + head + i % {{ D }}u;
        ks[i] = k[at];
        vs[i] = v[at];
      }
      workgroupBarrier();
      // A token that does not read the prompt has no keys to look at; it takes part in the barriers alone.
      for (var key = select(end, tile, weight != 0.0); key < min(tile + {{ tile }}u, end); key += {{ block }}u) {
//% else
    {
      for (var key = select(end, first, weight != 0.0); key < end; key += {{ block }}u) {
//% endif
//% for j in range(block)
//% if staged
        let at{{ j }} = (key - tile + {{ j }}u) * {{ D }}u;
//% else
        let at{{ j }} = (shared_entry + min(key + {{ j }}u, end - 1u)) * sizes.channels;
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
        s{{ j }} = select(nothing, s{{ j }}, key + {{ j }}u < end);
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
    if (weight != 0.0) {
      // A weight of 1 changes nothing: one prompt alone gives the very numbers of plain attention.
//% for e in range(P)
//% set at = "y[start + offset + " ~ e ~ "u]"
//% if not whole
      if (offset + {{ e }}u < head + {{ D }}u) {
//% else
      {
//% endif
        var part = sum{{ e }} / total * weight;
        if (written) { part += {{ at }}; }
        {{ at }} = part;
      }
//% endfor
      written = true;
    }
  }
  if (written || slot >= sizes.tokens) { return; }
//% for e in range(P)
//% if not whole
  if (offset + {{ e }}u < head + {{ D }}u)
//% endif
  { y[start + offset + {{ e }}u] = {{ V }}(); }
//% endfor
}
