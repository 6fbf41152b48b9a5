// Exponentials of large numbers are infinite where the greatest is not taken off.
// fault: not-finite
//% kind softmax
//% dispatch [ceil(rows / 64)]
struct Sizes { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= sizes.rows) { return; }
  let start = id.x * sizes.columns;
  var total = 0.0;
  for (var c = 0u; c < sizes.columns; c++) { total += exp(x[start + c]); }
  for (var c = 0u; c < sizes.columns; c++) { y[start + c] = exp(x[start + c]) / total; }
}
