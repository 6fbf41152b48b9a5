// y = a b, turned round: an invocation keeps 64 rows of eight columns of `b`, loaded once, and 256
// rows of `a` pass by. Sums leave for memory only where `inner` is more than 64.
//% kind matmul
//% dispatch [ceil(columns / 64), ceil(rows / 256)]
//% needs inner % 64 == 0
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first_column = group.x * 64u;
//% for v in range(8)
  let column{{ v }} = first_column + {{ 8 * v }}u + lane;
//% endfor
  let end = min(group.y * 256u + 256u, sizes.rows);
  if (first_column + 64u > sizes.columns) {
    // The last columns, where there are fewer: one number after the other. Loops have few rounds,
    // as Mesa's software driver ends those of an invocation after 65535 together.
    for (var column = first_column + lane; column < sizes.columns; column += 8u) {
      for (var row = group.y * 256u; row < end; row++) {
        var sum = 0.0;
        for (var block = 0u; block < sizes.inner; block += 64u) {
//% for k in range(0, 64, 4)
          let a{{ k }} = a[(row * sizes.inner + block + {{ k }}u) / 4u];
//% for part in range(4)
          sum = fma(
            a{{ k }}.{{ "xyzw"[part] }},
            b[(block + {{ k + part }}u) * sizes.columns + column], sum);
//% endfor
//% endfor
        }
        y[row * sizes.columns + column] = sum;
      }
    }
  } else {
  for (var block = 0u; block < sizes.inner; block += 64u) {
//% for k in range(64)
//% for v in range(8)
    let b{{ k }}_{{ v }} = b[(block + {{ k }}u) * sizes.columns + column{{ v }}];
//% endfor
//% endfor
    for (var row = group.y * 256u; row < end; row++) {
//% for v in range(8)
      var sum{{ v }} = 0.0;
//% endfor
      if (block > 0u) {
//% for v in range(8)
        sum{{ v }} = y[row * sizes.columns + column{{ v }}];
//% endfor
      }
      let start = (row * sizes.inner + block) / 4u;
//% for k in range(0, 64, 4)
      let a{{ k }} = a[start + {{ k // 4 }}u];
//% for part in range(4)
//% for v in range(8)
      sum{{ v }} = fma(a{{ k }}.{{ "xyzw"[part] }}, b{{ k + part }}_{{ v }}, sum{{ v }});
//% endfor
//% endfor
//% endfor
//% for v in range(8)
      y[row * sizes.columns + column{{ v }}] = sum{{ v }};
//% endfor
    }
  }
  }
}
