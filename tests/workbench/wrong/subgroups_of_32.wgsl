// Two sums of subgroups are taken to be all there are.
// fault: subgroup-size
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
  peak = subgroupMax(peak);
  if (lane % 32u == 0u) { parts[lane / 32u] = peak; }
  workgroupBarrier();
  for (var i = 0u; i < 2u; i++) { peak = max(peak, parts[i]); }
  workgroupBarrier();
  var sum = 0.0;
  for (var c = lane; c < sizes.columns; c += 64u) { sum += exp(x[start + c] - peak); }
  sum = subgroupAdd(sum);
  if (lane % 32u == 0u) { parts[lane / 32u] = sum; }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < 2u; i++) { total += parts[i]; }
  for (var c = lane; c < sizes.columns; c += 64u) { y[start + c] = exp(x[start + c] - peak) / total; }
}
