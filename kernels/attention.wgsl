// y = softmax(scale q k^T) v for every head, without the score matrix: a running maximum, sum and
// weighted mean of values.
// q, y [batch, tokens, channels]; k, v [batch / share, keys, channels]; head h holds elements h d
// .. (h + 1) d, d = {{ d }}. y is overwritten. `scale` includes log2(e). An invocation makes
// {{ per_lane }} tokens of one head{{ ", elements in parts of " ~ part if part != d else "" }};
// keys come in blocks of {{ block }}{{ ", staged in workgroup memory" if staged }}. `channels`
// counts vectors of {{ vector }}.
//% tune lanes_held in [64, 16, 32]
//% tune per_lane in [1, 2]
//% tune block_narrow in [2, 4]
//% tune staged in [32, 16]
//% if masked
// Tokens and keys are the same; a token sees the keys with which it shares a bit of mask [tokens],
// itself among them.
//% endif
//% import "shared/softmax" as softmax
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% set D = d // vector
//% set P = part // vector
//% set parts = (d + part - 1) // part
//% set whole = part == d
//% set sees = "KEY < sizes.keys"
//% if causal
//% set sees = sees ~ " && KEY <= tokenTOKEN"
//% elif masked
//% set sees = sees ~ " && (seenTOKEN & mask[min(KEY, sizes.keys - 1u)]) != 0u"
//% endif
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> k: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> v: array<{{ V }}>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ V }}>;
//% if masked
@group(0) @binding(5) var<storage, read> mask: array<u32>;
//% endif
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
  let token{{ r }} = group.x * {{ lanes * per_lane }}u + {{ r * lanes }}u + lane;
  let start{{ r }} =
    (group.z * sizes.tokens + min(token{{ r }}, sizes.tokens - 1u)) * sizes.channels;
//% if whole
//% for e in range(D)
  let q{{ r }}_{{ e }} = q[start{{ r }} + head + {{ e }}u] * sizes.scale;
//% endfor
//% endif
//% for e in range(P)
  var sum{{ r }}_{{ e }} = {{ V }}();
//% endfor
  var peak{{ r }} = nothing;
  var total{{ r }} = 0.0;
//% if masked
  let seen{{ r }} = mask[min(token{{ r }}, sizes.tokens - 1u)];
//% endif
//% endfor
//% if causal
  // later ones are seen by no token of this group
  let keys = min(sizes.keys, (group.x + 1u) * {{ lanes * per_lane }}u);
//% else
  let keys = sizes.keys;
//% endif
//% if staged
  for (var tile = 0u; tile < keys; tile += {{ tile }}u) {
    workgroupBarrier();
    for (var i = lane; i < {{ tile * D }}u; i += {{ lanes }}u) {
      let at = (shared_entry + min(tile + i / {{ D }}u, sizes.keys - 1u)) * sizes.channels + head
        + i % {{ D }}u;
      ks[i] = k[at];
      vs[i] = v[at];
    }
    workgroupBarrier();
    for (var key = tile; key < min(tile + {{ tile }}u, keys); key += {{ block }}u) {
//% else
  {
    for (var key = 0u; key < keys; key += {{ block }}u) {
//% endif
{{ softmax.add_keys(per_lane, block, vector, D, P, whole, staged, "sizes.keys", sees) }}
    }
  }
//% for r in range(per_lane)
  if (token{{ r }} < sizes.tokens) {
//% for e in range(P)
//% if whole
    y[start{{ r }} + offset + {{ e }}u] = sum{{ r }}_{{ e }} / total{{ r }};
//% else
    if (offset + {{ e }}u < head + {{ D }}u) {
      y[start{{ r }} + offset + {{ e }}u] = sum{{ r }}_{{ e }} / total{{ r }};
    }
//% endif
//% endfor
  }
//% endfor
}
