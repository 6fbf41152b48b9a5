// Rows of `a` beyond the last are read.
// fault: out-of-bounds-read
//% kind matmul
//% dispatch [ceil(columns / 16), ceil(rows / 16)]
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<workgroup> as_tile: array<f32, 256>;
var<workgroup> bs_tile: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn main(
  @builtin(global_invocation_id) id: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = id.y;
  let column = id.x;
  var sum = 0.0;
  for (var tile = 0u; tile < (sizes.inner + 15u) / 16u; tile++) {
    let k = tile * 16u + local.x;
    var from_a = 0.0;
    if (k < sizes.inner) { from_a = a[row * sizes.inner + k]; }
    as_tile[local.y * 16u + local.x] = from_a;
    let l = tile * 16u + local.y;
    var from_b = 0.0;
    if (l < sizes.inner && column < sizes.columns) { from_b = b[l * sizes.columns + column]; }
    bs_tile[local.y * 16u + local.x] = from_b;
    workgroupBarrier();
    for (var i = 0u; i < 16u; i++) {
      sum += as_tile[local.y * 16u + i] * bs_tile[i * 16u + local.x];
    }
    workgroupBarrier();
  }
  if (row < sizes.rows && column < sizes.columns) {
    y[row * sizes.columns + column] = sum;
  }
}
