// y = a b: eight rows by four columns to an invocation, in registers: a load of `b` is used eight
// times. The rows are written out by the template, as loops over arrays are not kept in registers.
//% kind matmul
//% dispatch [ceil(columns / 32), ceil(rows / 8)]
//% needs columns % 4 == 0
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let columns = sizes.columns / 4u;
  let column = group.x * 8u + lane;
  if (column >= columns) { return; }
  let first = group.y * 8u;
//% for i in range(8)
  // Rows beyond the last are computed as the last one, and not written.
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u) * sizes.inner;
  var sum{{ i }} = vec4<f32>();
//% endfor
  for (var k = 0u; k < sizes.inner; k++) {
    let from_b = b[k * columns + column];
//% for i in range(8)
    sum{{ i }} = fma(vec4<f32>(a[row{{ i }} + k]), from_b, sum{{ i }});
//% endfor
  }
//% for i in range(8)
  if (first + {{ i }}u < sizes.rows) { y[(first + {{ i }}u) * columns + column] = sum{{ i }}; }
//% endfor
}
