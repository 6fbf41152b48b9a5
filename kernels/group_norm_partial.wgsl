// Mean and sum of squared deviations of every channel over one chunk of a batch entry's rows.
// x [batch, rows, channels]; partial [batch, chunks, 2, channels] is overwritten: means, then
// squares.
// Deviations are taken from the chunk's first row, so that a large mean costs no digits.
//% tune shortest_chunk in [64, 32, 128]
//% tune most_chunks in [512, 64, 128]
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes { batch: u32, rows: u32, channels: u32, chunks: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read_write> partial: array<{{ V }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.batch * sizes.chunks * sizes.channels) { return; }
  let channel = i % sizes.channels;
  let chunk = i / sizes.channels % sizes.chunks;
  let entry = i / sizes.channels / sizes.chunks;
  let first = chunk * sizes.rows / sizes.chunks;
  let last = (chunk + 1u) * sizes.rows / sizes.chunks;
  let start = entry * sizes.rows;
  let shift = x[(start + first) * sizes.channels + channel];
  var sum = {{ V }}();
  var square = {{ V }}();
  for (var r = first; r < last; r++) {
    let d = x[(start + r) * sizes.channels + channel] - shift;
    sum += d;
    square = fma(d, d, square);
  }
  let count = f32(last - first);
  let at = (entry * sizes.chunks + chunk) * 2u * sizes.channels + channel;
  partial[at] = shift + sum / count;
  partial[at + sizes.channels] = max(square - sum * sum / count, {{ V }}());
}
