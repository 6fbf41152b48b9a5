// The stride of b is that of a: rows of the matrix are halves of rows of the tile.
// fault: wrong-values
//% kind matmul
//% dispatch [ceil(columns / 32), ceil(rows / 16)]
enable f16;
enable wgpu_cooperative_matrix;
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f16>;
@group(0) @binding(2) var<storage, read> b: array<f16>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<workgroup> a_tile: array<f16, 256>; // [row][inner]
var<workgroup> b_tile: array<f16, 512>; // [inner][column]
var<workgroup> sums: array<f32, 512>; // [row][column]

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let part = subgroup * 16u;
  for (var e = lane; e < 512u; e += 64u) { sums[e] = 0.0; }
  workgroupBarrier();
  var c = coopLoadT<coop_mat16x16<f32, C>>(&sums[part], 32u);
  for (var k = 0u; k < sizes.inner; k += 16u) {
    workgroupBarrier();
    for (var e = lane; e < 256u; e += 64u) {
      let row = group.y * 16u + e / 16u;
      let at = k + e % 16u;
      var v = 0.0h;
      if (row < sizes.rows && at < sizes.inner) { v = a[row * sizes.inner + at]; }
      a_tile[e] = v;
    }
    for (var e = lane; e < 512u; e += 64u) {
      let at = k + e / 32u;
      let column = group.x * 32u + e % 32u;
      var v = 0.0h;
      if (at < sizes.inner && column < sizes.columns) { v = b[at * sizes.columns + column]; }
      b_tile[e] = v;
    }
    workgroupBarrier();
    let from_a = coopLoadT<coop_mat16x16<f16, A>>(&a_tile[0], 16u);
    let from_b = coopLoadT<coop_mat16x16<f16, B>>(&b_tile[part], 16u);
    c = coopMultiplyAdd(from_a, from_b, c);
  }
  workgroupBarrier();
  let to = &sums[part];
  let done = c;
  coopStoreT(done, to, 32u);
  workgroupBarrier();
  for (var e = lane; e < 512u; e += 64u) {
    let row = group.y * 16u + e / 32u;
    let column = group.x * 32u + e % 32u;
    if (row < sizes.rows && column < sizes.columns) {
      y[row * sizes.columns + column] = sums[e];
    }
  }
}
