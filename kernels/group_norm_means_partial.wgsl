// Sums of g = dy * weight and of g n, n = (x - mean) * rstd, of every channel over one chunk of a
// batch entry's rows.
// x, dy [batch, rows, channels]; statistics [batch, groups, 2]; partial
// [batch, chunks, 2, channels] is overwritten: sums of g, then of g n. `channels` counts vectors of
// {{ vector }}.
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes { batch: u32, rows: u32, channels: u32, chunks: u32, groups: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> statistics: array<f32>;
@group(0) @binding(3) var<storage, read> weight: array<{{ V }}>;
@group(0) @binding(4) var<storage, read> dy: array<{{ V }}>;
@group(0) @binding(5) var<storage, read_write> partial: array<{{ V }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.batch * sizes.chunks * sizes.channels) { return; }
  let channel = i % sizes.channels;
  let chunk = i / sizes.channels % sizes.chunks;
  let entry = i / sizes.channels / sizes.chunks;
  let width = sizes.channels * {{ vector }}u / sizes.groups;
//% for c in range(vector)
  let at{{ c }} = (entry * sizes.groups + (channel * {{ vector }}u + {{ c }}u) / width) * 2u;
//% endfor
//% if vector == 4
  let mean = vec4<f32>(statistics[at0], statistics[at1], statistics[at2], statistics[at3]);
  let rstd = vec4<f32>(
    statistics[at0 + 1u], statistics[at1 + 1u], statistics[at2 + 1u], statistics[at3 + 1u]);
//% else
  let mean = statistics[at0];
  let rstd = statistics[at0 + 1u];
//% endif
  var sum = {{ V }}();
  var moment = {{ V }}();
  let last = (chunk + 1u) * sizes.rows / sizes.chunks;
  for (var r = chunk * sizes.rows / sizes.chunks; r < last; r++) {
    let at = (entry * sizes.rows + r) * sizes.channels + channel;
    let d = dy[at];
    sum += d;
    moment = fma(d, x[at] - mean, moment);
  }
  let to = (entry * sizes.chunks + chunk) * 2u * sizes.channels + channel;
  partial[to] = sum * weight[channel];
  partial[to + sizes.channels] = moment * rstd * weight[channel];
}
