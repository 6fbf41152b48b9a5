// The gradient of a group norm as numbers of each channel: factor * dy + slope * (x - mean) +
// offset, from the statistics and the two means [batch, groups, 2] of the groups. affine
// [batch, 4, channels] is overwritten: mean, factor, slope, offset.
struct Sizes { batch: u32, channels: u32, groups: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> statistics: array<f32>;
@group(0) @binding(2) var<storage, read> means: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read_write> affine: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.batch * sizes.channels) { return; }
  let channel = i % sizes.channels;
  let entry = i / sizes.channels;
  let at = (entry * sizes.groups + channel / (sizes.channels / sizes.groups)) * 2u;
  let rstd = statistics[at + 1u];
  let to = entry * 4u * sizes.channels + channel;
  affine[to] = statistics[at];
  affine[to + sizes.channels] = rstd * weight[channel];
  affine[to + 2u * sizes.channels] = -rstd * rstd * means[at + 1u];
  affine[to + 3u * sizes.channels] = -rstd * means[at];
}
