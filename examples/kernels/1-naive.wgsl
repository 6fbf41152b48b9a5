// y = a b: an element to an invocation.
//% kind matmul
//% dispatch [ceil(columns / 8), ceil(rows / 8)]
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.y >= sizes.rows || id.x >= sizes.columns) { return; }
  var sum = 0.0;
  for (var k = 0u; k < sizes.inner; k++) {
    sum += a[id.y * sizes.inner + k] * b[k * sizes.columns + id.x];
  }
  y[id.y * sizes.columns + id.x] = sum;
}
