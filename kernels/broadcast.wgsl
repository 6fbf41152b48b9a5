// y[o, r, i] = x[o, i] for every r: repeats x [outer, inner] along the middle of y
// [outer, repeated, inner], which is overwritten.
// `inner` counts vectors of {{ vector }}.
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes { outer: u32, repeated: u32, inner: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ V }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = (group.x + group.y * 32768u) * 64u + lane;
  if (at >= sizes.outer * sizes.repeated * sizes.inner) { return; }
  y[at] = x[at / sizes.inner / sizes.repeated * sizes.inner + at % sizes.inner];
}
