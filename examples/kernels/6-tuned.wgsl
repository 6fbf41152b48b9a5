// y = a b: as before, and how many columns and rows suit the machine is for `mos kernel tune` to
// find out, as is whether a number of `a` is loaded for all invocations at once, or eight of them
// by eight invocations, which tell each other.
//% kind matmul
//% dispatch [ceil(columns / (8 * wide)), ceil(rows / 256)]
//% needs inner % depth == 0
//% tune wide in [8, 10]
//% tune depth in [64, 80]
//% tune rows_each in [1, 2]
//% tune told in [0, 1]
//% set each = 8 if told else 4
//% set vectors = "" if told else " / 4u"
struct Sizes { rows: u32, inner: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<{{ "f32" if told else "vec4<f32>" }}>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first_column = group.x * {{ 8 * wide }}u;
//% for v in range(wide)
  let column{{ v }} = first_column + {{ 8 * v }}u + lane;
//% endfor
  let end = min(group.y * 256u + 256u, sizes.rows);
  if (first_column + {{ 8 * wide }}u > sizes.columns) {
    // The last columns, where there are fewer: one number after the other.
    for (var column = first_column + lane; column < sizes.columns; column += 8u) {
      for (var row = group.y * 256u; row < end; row++) {
        var sum = 0.0;
        for (var block = 0u; block < sizes.inner; block += {{ depth }}u) {
//% for k in range(depth)
//% set part = "" if told else "." ~ "xyzw"[k % 4]
          sum = fma(
            a[(row * sizes.inner + block + {{ k }}u){{ vectors }}]{{ part }},
            b[(block + {{ k }}u) * sizes.columns + column], sum);
//% endfor
        }
        y[row * sizes.columns + column] = sum;
      }
    }
  } else {
  for (var block = 0u; block < sizes.inner; block += {{ depth }}u) {
//% for k in range(depth)
//% for v in range(wide)
    let b{{ k }}_{{ v }} = b[(block + {{ k }}u) * sizes.columns + column{{ v }}];
//% endfor
//% endfor
    for (var first = group.y * 256u; first < end; first += {{ rows_each }}u) {
//% for i in range(rows_each)
      // A row beyond the last is the last one once more.
      let row{{ i }} = min(first + {{ i }}u, end - 1u);
      let start{{ i }} = (row{{ i }} * sizes.inner + block){{ vectors }};
//% for v in range(wide)
      var sum{{ i }}_{{ v }} = 0.0;
//% endfor
//% endfor
      if (block > 0u) {
//% for i in range(rows_each)
//% for v in range(wide)
        sum{{ i }}_{{ v }} = y[row{{ i }} * sizes.columns + column{{ v }}];
//% endfor
//% endfor
      }
//% for k in range(0, depth, each)
//% for i in range(rows_each)
//% if told
      let a{{ i }}_{{ k }} = a[start{{ i }} + {{ k }}u + lane];
//% else
      let a{{ i }}_{{ k }} = a[start{{ i }} + {{ k // 4 }}u];
//% endif
//% endfor
//% for part in range(each)
//% for i in range(rows_each)
//% if told
      let a{{ i }}_{{ k }}_{{ part }} = subgroupBroadcast(a{{ i }}_{{ k }}, {{ part }}u);
//% else
      let a{{ i }}_{{ k }}_{{ part }} = a{{ i }}_{{ k }}.{{ "xyzw"[part] }};
//% endif
//% for v in range(wide)
      sum{{ i }}_{{ v }} =
        fma(a{{ i }}_{{ k }}_{{ part }}, b{{ k + part }}_{{ v }}, sum{{ i }}_{{ v }});
//% endfor
//% endfor
//% endfor
//% endfor
//% for i in range(rows_each)
//% for v in range(wide)
      y[row{{ i }} * sizes.columns + column{{ v }}] = sum{{ i }}_{{ v }};
//% endfor
//% endfor
    }
  }
  }
}
