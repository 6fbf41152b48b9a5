// y[row - first] = the sum of x[i] over all i with min(ids[i], last) = row, in their order, for the
// rows of a table that are read at all; y [count, channels] holds its rows from `first` on and is
// zero before. x [indices, channels].
// A workgroup takes 64 channels of the row that index group.x reads, if no index before it reads
// the same.
struct Sizes { indices: u32, channels: u32, last: u32, first: u32, count: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = group.x + group.y * 32768u;
  if (i >= sizes.indices) { return; }
  let row = min(ids[i], sizes.last);
  let to = row - sizes.first; // wraps around for one before `first`
  if (to >= sizes.count) { return; }
  for (var j = 0u; j < i; j++) {
    if (min(ids[j], sizes.last) == row) { return; }
  }
  let channel = group.z * 64u + lane;
  if (channel >= sizes.channels) { return; }
  var sum = 0.0;
  for (var j = i; j < sizes.indices; j++) {
    if (min(ids[j], sizes.last) == row) { sum += x[j * sizes.channels + channel]; }
  }
  y[to * sizes.channels + channel] = sum;
}
