// y[i] = value. y [elements] is overwritten.
struct Sizes { elements: u32, value: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i < sizes.elements) { y[i] = sizes.value; }
}
