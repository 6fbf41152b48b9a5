// sums += x^T x over all rows of x, in two f32 that are added on the host: far more digits than one
// f32 keeps.
// x [rows, n] f32; sums [2, n, n] is added to: plane 0 the sums, plane 1 what rounding took from
// them. Only elements whose column is at most their row are meant: sums are symmetric, and tiles
// above the diagonal are left out.
// Register tile: 8 rows by {{ 16 * vector }} columns of sums for 16 lanes, {{ groups }} tile(s) a
// workgroup, no barrier. {{ block }} rows of x are summed in f32 before they are added to `sums`.
// `channels` counts vectors of {{ vector }}.
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes { rows: u32, n: u32, channels: u32, one: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read_write> sums: array<{{ V }}>;

// The rounding error of a sum (Knuth's TwoSum). `one` is 1: a factor that no compiler knows, so
// that none may cancel the terms.
fn add(at: u32, c: {{ V }}) {
  let lost = at + sizes.n * sizes.channels;
  let a = sums[at];
  let s = (a + c) * sizes.one;
  let t = (s - a) * sizes.one;
  sums[lost] += (a - (s - t) * sizes.one) + (c - t);
  sums[at] = s;
}

@compute @workgroup_size(16, {{ groups }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  let column = group.x * 16u + local.x;
  let first = (group.y * {{ groups }}u + local.y) * 8u;
  if (first >= sizes.n || column >= sizes.channels || column * {{ vector }}u > first + 7u) {
    return;
  }
//% if vector == 4
  let left = first / 4u;
  let right = min(left + 1u, sizes.channels - 1u);
//% else
//% for i in range(8)
  let row{{ i }} = min(first + {{ i }}u, sizes.n - 1u);
//% endfor
//% endif
  for (var start = 0u; start < sizes.rows; start += {{ block }}u) {
    let end = min(start + {{ block }}u, sizes.rows);
//% for i in range(8)
    var c{{ i }} = {{ V }}();
//% endfor
    for (var r = start; r < end; r++) {
      let line = r * sizes.channels;
      let b = x[line + column];
//% if vector == 4
      let a0 = x[line + left];
      let a1 = x[line + right];
//% for i in range(8)
      c{{ i }} = fma(vec4<f32>(a{{ i // 4 }}.{{ "xyzw"[i % 4] }}), b, c{{ i }});
//% endfor
//% else
//% for i in range(8)
      c{{ i }} = fma(x[line + row{{ i }}], b, c{{ i }});
//% endfor
//% endif
    }
//% for i in range(8)
    if (first + {{ i }}u < sizes.n) { add((first + {{ i }}u) * sizes.channels + column, c{{ i }}); }
//% endfor
  }
}
