// y = a b: as before, and how many rows, lanes and vectors of columns suit the machine is for
// `mos kernel tune` to find out.
//% kind matmul
//% dispatch [ceil(columns / (4 * lanes * wide)), ceil(rows / rows_each)]
//% needs columns % 4 == 0
//% needs inner % 4 == 0
//% tune rows_each in [8, 4, 12, 16]
//% tune lanes in [8, 4, 16]
//% tune wide in [1, 2]
//% set rows = rows_each
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let columns = sizes.columns / 4u;
  let inner = sizes.inner / 4u;
  let first = group.y * {{ rows }}u;
//% for v in range(wide)
  let column{{ v }} = group.x * {{ lanes * wide }}u + {{ v * lanes }}u + lane;
  let from{{ v }} = min(column{{ v }}, columns - 1u);
//% endfor
//% for i in range(rows)
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u) * inner;
//% for v in range(wide)
  var sum{{ i }}_{{ v }} = vec4<f32>();
//% endfor
//% endfor
  for (var k = 0u; k < inner; k++) {
//% for i in range(rows)
    let a{{ i }} = a[row{{ i }} + k];
//% endfor
//% for part in range(4)
//% for v in range(wide)
    let b{{ part }}_{{ v }} = b[(4u * k + {{ part }}u) * columns + from{{ v }}];
//% for i in range(rows)
    sum{{ i }}_{{ v }} =
      fma(vec4<f32>(a{{ i }}.{{ "xyzw"[part] }}), b{{ part }}_{{ v }}, sum{{ i }}_{{ v }});
//% endfor
//% endfor
//% endfor
  }
//% for i in range(rows)
  if (first + {{ i }}u < sizes.rows) {
//% for v in range(wide)
    if (column{{ v }} < columns) {
      y[(first + {{ i }}u) * columns + column{{ v }}] = sum{{ i }}_{{ v }};
    }
//% endfor
  }
//% endfor
}
