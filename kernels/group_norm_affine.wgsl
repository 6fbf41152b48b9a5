// Statistics, weight and bias as one factor and one offset a channel: x * affine[0] + affine[1].
// statistics [batch, groups, 2]; affine [batch, 2, channels] is overwritten.
struct Sizes { batch: u32, channels: u32, groups: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> statistics: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> affine: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.batch * sizes.channels) { return; }
  let channel = i % sizes.channels;
  let entry = i / sizes.channels;
  let at = (entry * sizes.groups + channel / (sizes.channels / sizes.groups)) * 2u;
  let factor = statistics[at + 1u] * weight[channel];
  let to = entry * 2u * sizes.channels + channel;
  affine[to] = factor;
  affine[to + sizes.channels] = bias[channel] - statistics[at] * factor;
}
