// y = sum over prompts of weight(token, prompt) softmax(scale q k^T) v, for every head, k and v
// those of the prompt alone; without the score matrix.
// q, y [batch, tokens, channels]; k, v [batch / share, keys, channels], prompts one after another;
// head h holds elements h d .. (h + 1) d, d = {{ d }}.
// order [tokens]: in which order invocations take the tokens; weights [tokens, prompts], 0 for
// prompts that a token does not read; spans [tokens / {{ group }}, prompts, 2]: for every
// {{ group }} tokens of that order, the first and the end of the keys of each prompt, the same
// number twice where none of them reads it. y is overwritten; 0 where all weights are. `scale`
// includes log2(e). An invocation makes {{ per_lane }} tokens of one
// head{{ ", elements in parts of " ~ part if part != d else "" }}; keys come in blocks of
// {{ block }}. `channels` counts vectors of {{ vector }}.
//% import "shared/softmax" as softmax
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% set D = d // vector
//% set P = part // vector
//% set parts = (d + part - 1) // part
//% set whole = part == d
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
  let head = group.y / {{ parts }}u * {{ D }}u;
  let offset = head + group.y % {{ parts }}u * {{ P }}u;
  let shared_entry = group.z / sizes.share * sizes.keys;
//% for r in range(per_lane)
  let slot{{ r }} = group.x * {{ lanes * per_lane }}u + {{ r * lanes }}u + lane;
  let token{{ r }} = min(order[min(slot{{ r }}, sizes.tokens - 1u)], sizes.tokens - 1u);
  let start{{ r }} = (group.z * sizes.tokens + token{{ r }}) * sizes.channels;
//% if whole
//% for e in range(D)
  let q{{ r }}_{{ e }} = q[start{{ r }} + head + {{ e }}u] * sizes.scale;
//% endfor
//% endif
  var written{{ r }} = false;
//% endfor
  for (var prompt = 0u; prompt < sizes.prompts; prompt++) {
    let span = (group.x * {{ lanes * per_lane }}u / {{ group }}u * sizes.prompts + prompt) * 2u;
    let first = spans[span];
    let end = min(spans[span + 1u], sizes.keys);
    if (first >= end) { continue; }
    var reads = false;
//% for r in range(per_lane)
    var weight{{ r }} = weights[token{{ r }} * sizes.prompts + prompt];
    if (slot{{ r }} >= sizes.tokens) { weight{{ r }} = 0.0; }
    reads = reads || weight{{ r }} != 0.0;
//% for e in range(P)
    var sum{{ r }}_{{ e }} = {{ V }}();
//% endfor
    var peak{{ r }} = nothing;
    var total{{ r }} = 0.0;
//% endfor
//% if staged
    for (var tile = first; tile < end; tile += {{ tile }}u) {
      workgroupBarrier();
      for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
        let at = (shared_entry + min(tile + i / {{ D }}u, end - 1u)) * sizes.channels + head
          + i % {{ D }}u;
        ks[i] = k[at];
        vs[i] = v[at];
      }
      workgroupBarrier();
      // A token that does not read the prompt has no keys to look at; it takes part in the barriers
      // alone.
      for (var key = select(end, tile, reads); key < min(tile + {{ tile }}u, end);
        key += {{ block }}u) {
//% else
    {
      for (var key = select(end, first, reads); key < end; key += {{ block }}u) {
//% endif
{{ softmax.add_keys(per_lane, block, vector, D, P, whole, staged, "end", "KEY < end") }}
      }
    }
//% for r in range(per_lane)
    if (weight{{ r }} != 0.0) {
      // A weight of 1 changes nothing: one prompt alone gives the very numbers of plain attention.
//% for e in range(P)
//% set at = "y[start" ~ r ~ " + offset + " ~ e ~ "u]"
//% if not whole
      if (offset + {{ e }}u < head + {{ D }}u) {
//% else
      {
//% endif
        var part = sum{{ r }}_{{ e }} / total{{ r }} * weight{{ r }};
        if (written{{ r }}) { part += {{ at }}; }
        {{ at }} = part;
      }
//% endfor
      written{{ r }} = true;
    }
//% endfor
  }
//% for r in range(per_lane)
  if (!written{{ r }} && slot{{ r }} < sizes.tokens) {
//% for e in range(P)
//% if not whole
    if (offset + {{ e }}u < head + {{ D }}u)
//% endif
    { y[start{{ r }} + offset + {{ e }}u] = {{ V }}(); }
//% endfor
  }
//% endfor
}
