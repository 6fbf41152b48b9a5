// partial[chunk, j, i] = sum of a[r, i] b[r, j] over the rows of a chunk: the first pass of a
// narrow weight's gradient.
// a [rows, wide], b [rows, few] f32; partial [chunks, few, wide] is overwritten. A workgroup makes
// 4 columns of b by {{ lanes }} vectors of a for one chunk of `chunk` rows. `wide` counts vectors
// of {{ vector }}.
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes {
  rows: u32,
  wide: u32,
  few: u32,
  chunk: u32,
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> b: array<{{ "vec4<f32>" if vector_few == 4 else "f32" }}>;
@group(0) @binding(3) var<storage, read_write> partial: array<{{ V }}>;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = group.x * {{ lanes }}u + lane;
  let at = min(i, sizes.wide - 1u);
  let first = group.y * 4u;
//% for j in range(4)
//% if vector_few == 1
  let j{{ j }} = min(first + {{ j }}u, sizes.few - 1u);
//% endif
  var c{{ j }} = {{ V }}();
//% endfor
  let end = min((group.z + 1u) * sizes.chunk, sizes.rows);
  for (var row = group.z * sizes.chunk; row < end; row++) {
    let wide = a[row * sizes.wide + at];
//% if vector_few == 4
    let few = b[row * (sizes.few / 4u) + group.y];
//% endif
//% for j in range(4)
//% set b = "few." ~ "xyzw"[j] if vector_few == 4 else "b[row * sizes.few + j" ~ j ~ "]"
    c{{ j }} = fma({{ V }}({{ b }}), wide, c{{ j }});
//% endfor
  }
  if (i < sizes.wide) {
//% for j in range(4)
    if (first + {{ j }}u < sizes.few) {
      partial[(group.z * sizes.few + first + {{ j }}u) * sizes.wide + i] = c{{ j }};
    }
//% endfor
  }
}
