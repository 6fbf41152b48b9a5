// Runs of `width` vectors: run r from r * from_stride + from_start to r * to_stride + to_start.
// Of y, only the runs are overwritten.
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes {
  rows: u32,
  width: u32,
  from_stride: u32,
  from_start: u32,
  to_stride: u32,
  to_start: u32,
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ V }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.rows * sizes.width) { return; }
  let row = i / sizes.width;
  let at = i % sizes.width;
  y[row * sizes.to_stride + sizes.to_start + at] =
    x[row * sizes.from_stride + sizes.from_start + at];
}
