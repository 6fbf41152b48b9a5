// A row to a workgroup.
//% kind layer_norm
//% dispatch [rows]
struct Sizes { rows: u32, columns: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
var<workgroup> parts: array<f32, 32>;

fn total(lane: u32, part: f32) -> f32 {
  workgroupBarrier();
  parts[lane] = part;
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < 32u; i++) { sum += parts[i]; }
  return sum;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let start = group.x * sizes.columns;
  var sum = 0.0;
  for (var c = lane; c < sizes.columns; c += 32u) { sum += x[start + c]; }
  let mean = total(lane, sum) / f32(sizes.columns);
  var square = 0.0;
  for (var c = lane; c < sizes.columns; c += 32u) {
    let d = x[start + c] - mean;
    square += d * d;
  }
  let rstd = inverseSqrt(total(lane, square) / f32(sizes.columns) + sizes.epsilon);
  for (var c = lane; c < sizes.columns; c += 32u) {
    y[start + c] = (x[start + c] - mean) * rstd * weight[c] + bias[c];
  }
}
