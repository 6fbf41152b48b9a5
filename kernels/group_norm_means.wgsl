// The two means of every group from the chunks' sums. partial [batch, chunks, 2, channels]; y
// [batch, groups, 2] is overwritten.
// One workgroup a group; a fixed order of sums.
struct Sizes { groups: u32, rows: u32, channels: u32, chunks: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> partial: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
var<workgroup> sums: array<f32, 16>;
var<workgroup> moments: array<f32, 16>;

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = sizes.channels / sizes.groups;
  let start = group.y * sizes.chunks * 2u * sizes.channels + group.x * width;
  var sum = 0.0;
  var moment = 0.0;
  for (var m = lane; m < width * sizes.chunks; m += 16u) {
    let at = start + m / width * 2u * sizes.channels + m % width;
    sum += partial[at];
    moment += partial[at + sizes.channels];
  }
  sums[lane] = sum;
  moments[lane] = moment;
  workgroupBarrier();
  if (lane == 0u) {
    var total = 0.0;
    var total_moment = 0.0;
//% for i in range(16)
    total += sums[{{ i }}];
    total_moment += moments[{{ i }}];
//% endfor
    let count = f32(width) * f32(sizes.rows);
    let at = (group.y * sizes.groups + group.x) * 2u;
    y[at] = total / count;
    y[at + 1u] = total_moment / count;
  }
}
