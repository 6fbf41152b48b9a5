// Two workgroups share each sum, and both add their part to `y`.
// fault: race, reads-output
//% kind matmul
//% dispatch [ceil(rows * columns / 64), 1, 2]
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= sizes.rows * sizes.columns) { return; }
  let row = id.x / sizes.columns;
  let column = id.x % sizes.columns;
  var sum = 0.0;
  for (var k = id.z; k < sizes.inner; k += 2u) {
    sum += a[row * sizes.inner + k] * b[k * sizes.columns + column];
  }
  y[id.x] += sum;
}
