// Adds up the chunks of weight_gradient_partial in their order: y[j, i] = sum_chunk
// partial[chunk, j, i]{{ ", stored as y[i, j]" if swapped else "" }}.
// partial [chunks, few, wide], y [few, wide] or, swapped, [wide, few]: overwritten.
struct Sizes {
  chunks: u32,
  wide: u32,
  few: u32,
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  let count = sizes.few * sizes.wide;
  if (i >= count) { return; }
  var sum = 0.0;
  for (var chunk = 0u; chunk < sizes.chunks; chunk++) {
    sum += partial[chunk * count + i];
  }
//% if swapped
  y[i % sizes.wide * sizes.few + i / sizes.wide] = sum;
//% else
  y[i] = sum;
//% endif
}
