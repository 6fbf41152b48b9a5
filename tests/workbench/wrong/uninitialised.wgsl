// Only as many invocations as there are columns write their part; all are read.
// fault: uninitialised-workgroup-memory
//% kind softmax
//% dispatch [rows]
struct Sizes { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<workgroup> parts: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let start = group.x * sizes.columns;
  var peak = -1e38;
  for (var c = lane; c < sizes.columns; c += 64u) { peak = max(peak, x[start + c]); }
  if (lane < sizes.columns) { parts[lane] = peak; }
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { parts[lane] = max(parts[lane], parts[lane + half]); }
    workgroupBarrier();
  }
  peak = parts[0];
  workgroupBarrier();
  var sum = 0.0;
  for (var c = lane; c < sizes.columns; c += 64u) { sum += exp(x[start + c] - peak); }
  parts[lane] = sum;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { parts[lane] += parts[lane + half]; }
    workgroupBarrier();
  }
  let total = parts[0];
  for (var c = lane; c < sizes.columns; c += 64u) { y[start + c] = exp(x[start + c] - peak) / total; }
}
