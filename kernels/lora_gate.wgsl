// y[r, first + n] = factor * strength * mask[r % mask_rows] for n < rank: one update's columns of a
// gate, with what there is of the three.
// strength [1], mask [mask_rows], y [rows, channels]: only the columns are overwritten.
struct Sizes {
  rows: u32,
  channels: u32,
  first: u32,
  rank: u32,
  factor: f32,
//% if mask
  mask_rows: u32,
//% endif
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
//% if strength
@group(0) @binding(2) var<storage, read> strength: array<f32>;
//% endif
//% if mask
@group(0) @binding(3) var<storage, read> mask: array<f32>;
//% endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.rows * sizes.rank) { return; }
  let row = i / sizes.rank;
  var v = sizes.factor;
//% if strength
  v *= strength[0];
//% endif
//% if mask
  v *= mask[row % sizes.mask_rows];
//% endif
  y[row * sizes.channels + sizes.first + i % sizes.rank] = v;
}
