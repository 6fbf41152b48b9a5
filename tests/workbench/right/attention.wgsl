// A token of a head to an invocation, with a running maximum.
//% kind attention
//% dispatch [ceil(tokens / 32), heads, batch]
//% needs depth <= 64
struct Sizes { tokens: u32, keys: u32, heads: u32, depth: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= sizes.tokens) { return; }
  let channels = sizes.heads * sizes.depth;
  let row = (id.z * sizes.tokens + id.x) * channels + id.y * sizes.depth;
  let keys = id.z * sizes.keys * channels + id.y * sizes.depth;
  var peak = -1e30;
  var total = 0.0;
  var sums = array<f32, 64>();
  for (var i = 0u; i < sizes.keys; i++) {
    let at = keys + i * channels;
    var score = 0.0;
    for (var d = 0u; d < sizes.depth; d++) { score += q[row + d] * k[at + d]; }
    score *= sizes.scale;
    let higher = max(peak, score);
    let before = exp(peak - higher);
    let weight = exp(score - higher);
    total = total * before + weight;
    for (var d = 0u; d < sizes.depth; d++) { sums[d] = sums[d] * before + weight * v[at + d]; }
    peak = higher;
  }
  for (var d = 0u; d < sizes.depth; d++) { y[row + d] = sums[d] / total; }
}
