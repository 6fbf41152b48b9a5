// y[i, c] = table[min(ids[i], last) - first, c]. table: `count` rows, from row `first` on, of the
// `last + 1` that there are in all (in this buffer and in others), f32 or two f16 in a u32. Of y
// [rows, channels], the rows whose id lies there are overwritten.
struct Sizes { rows: u32, channels: u32, last: u32, first: u32, count: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> table: array<{{ "u32" if half else "f32" }}>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.rows * sizes.channels) { return; }
  // wraps around for one before `first`
  let row = min(ids[i / sizes.channels], sizes.last) - sizes.first;
  if (row >= sizes.count) { return; }
  let at = row * sizes.channels + i % sizes.channels;
//% if half
  y[i] = unpack2x16float(table[at / 2u])[at % 2u];
//% else
  y[i] = table[at];
//% endif
}
