// y[o, c, i] = sum of x[o, r, i] over the r = c, c + chunks, c + 2 chunks ..: sums along the middle
// of x [outer, reduced, inner], in `chunks` parts. y [outer, chunks, inner] is overwritten. `inner`
// counts vectors of {{ vector }}.
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes { outer: u32, reduced: u32, inner: u32, chunks: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ V }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = (group.x + group.y * 32768u) * 64u + lane;
  if (at >= sizes.outer * sizes.chunks * sizes.inner) { return; }
  let i = at % sizes.inner;
  let start = at / sizes.inner / sizes.chunks * sizes.reduced;
  var sum = {{ V }}();
  for (var r = at / sizes.inner % sizes.chunks; r < sizes.reduced; r += sizes.chunks) {
    sum += x[(start + r) * sizes.inner + i];
  }
  y[at] = sum;
}
