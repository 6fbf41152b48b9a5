// Mean and 1/sqrt(variance + epsilon) of every group, from the chunks' means and squared deviations
// (Chan's formula).
// partial [batch, chunks, 2, channels]; y [batch, groups, 2] is overwritten. One workgroup a group,
// of {{ lanes }} invocations; a fixed order of sums.
struct Sizes { groups: u32, rows: u32, channels: u32, chunks: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<workgroup> sums: array<f32, {{ lanes }}>;
var<workgroup> squares: array<f32, {{ lanes }}>;

fn rows_of(chunk: u32) -> f32 {
  return f32((chunk + 1u) * sizes.rows / sizes.chunks - chunk * sizes.rows / sizes.chunks);
}

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = sizes.channels / sizes.groups;
  let members = width * sizes.chunks;
  let start = group.y * sizes.chunks * 2u * sizes.channels + group.x * width;
  let count = f32(width) * f32(sizes.rows);
  var sum = 0.0;
  for (var m = lane; m < members; m += {{ lanes }}u) {
    sum = fma(
      rows_of(m / width), partial[start + m / width * 2u * sizes.channels + m % width], sum);
  }
  sums[lane] = sum;
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < {{ lanes }}u; i++) { total += sums[i]; }
  let mean = total / count;
  var square = 0.0;
  for (var m = lane; m < members; m += {{ lanes }}u) {
    let at = start + m / width * 2u * sizes.channels + m % width;
    let d = partial[at] - mean;
    square += fma(rows_of(m / width) * d, d, partial[at + sizes.channels]);
  }
  squares[lane] = square;
  workgroupBarrier();
  if (lane == 0u) {
    var variance = 0.0;
    for (var i = 0u; i < {{ lanes }}u; i++) { variance += squares[i]; }
    let at = (group.y * sizes.groups + group.x) * 2u;
    y[at] = mean;
    y[at + 1u] = inverseSqrt(variance / count + sizes.epsilon);
  }
}
