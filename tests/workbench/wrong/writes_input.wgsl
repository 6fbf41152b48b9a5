// Exponentials are put where the input stood.
// fault: writes-input
//% kind softmax
//% dispatch [ceil(rows / 64)]
struct Sizes { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= sizes.rows) { return; }
  let start = id.x * sizes.columns;
  var peak = x[start];
  for (var c = 1u; c < sizes.columns; c++) { peak = max(peak, x[start + c]); }
  var total = 0.0;
  for (var c = 0u; c < sizes.columns; c++) {
    x[start + c] = exp(x[start + c] - peak);
    total += x[start + c];
  }
  for (var c = 0u; c < sizes.columns; c++) { y[start + c] = x[start + c] / total; }
}
