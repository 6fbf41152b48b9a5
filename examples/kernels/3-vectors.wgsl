// y = a b: four columns to an invocation, one row to a workgroup. The row is known from the
// workgroup's number alone, so that one load of `a` serves all invocations.
//% kind matmul
//% dispatch [ceil(columns / 32), rows]
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
  var sum = vec4<f32>();
  for (var k = 0u; k < sizes.inner; k++) {
    sum = fma(vec4<f32>(a[group.y * sizes.inner + k]), b[k * columns + column], sum);
  }
  y[group.y * columns + column] = sum;
}
