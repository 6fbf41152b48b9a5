// A token of a head to an invocation; keys are passed three times.
//% kind attention
//% dispatch [ceil(tokens / 32), heads, batch]
struct Sizes { tokens: u32, keys: u32, heads: u32, depth: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

fn score(from_q: u32, from_k: u32) -> f32 {
  var sum = 0.0;
  for (var d = 0u; d < sizes.depth; d++) { sum += q[from_q + d] * k[from_k + d]; }
  return sum * sizes.scale;
}

@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= sizes.tokens) { return; }
  let channels = sizes.heads * sizes.depth;
  let row = (id.z * sizes.tokens + id.x) * channels + id.y * sizes.depth;
  let keys = id.z * sizes.keys * channels + id.y * sizes.depth;
  var peak = -1e38;
  for (var i = 0u; i < sizes.keys; i++) { peak = max(peak, score(row, keys + i * channels)); }
  var total = 0.0;
  for (var i = 0u; i < sizes.keys; i++) { total += exp(score(row, keys + i * channels) - peak); }
  for (var d = 0u; d < sizes.depth; d++) {
    var sum = 0.0;
    for (var i = 0u; i < sizes.keys; i++) {
      sum += exp(score(row, keys + i * channels) - peak) * v[keys + i * channels + d];
    }
    y[row + d] = sum / total;
  }
}
