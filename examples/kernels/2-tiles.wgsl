// y = a b: tiles of both in workgroup memory, so that each number is fetched once for 16 uses.
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
  let at = local.y * 16u + local.x;
  var sum = 0.0;
  for (var tile = 0u; tile < sizes.inner; tile += 16u) {
    // What is outside is zero, so that the last tile needs no other loop.
    var from_a = 0.0;
    if (id.y < sizes.rows && tile + local.x < sizes.inner) {
      from_a = a[id.y * sizes.inner + tile + local.x];
    }
    var from_b = 0.0;
    if (tile + local.y < sizes.inner && id.x < sizes.columns) {
      from_b = b[(tile + local.y) * sizes.columns + id.x];
    }
    as_tile[at] = from_a;
    bs_tile[at] = from_b;
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      sum += as_tile[local.y * 16u + k] * bs_tile[k * 16u + local.x];
    }
    // Without this one the next tile is written while others still read this one.
    workgroupBarrier();
  }
  if (id.y < sizes.rows && id.x < sizes.columns) { y[id.y * sizes.columns + id.x] = sum; }
}
