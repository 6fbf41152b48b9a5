// A group to a workgroup.
//% kind group_norm
//% dispatch [groups, batch]
struct Sizes { batch: u32, rows: u32, channels: u32, groups: u32, epsilon: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
var<workgroup> parts: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = sizes.channels / sizes.groups;
  let count = sizes.rows * width;
  let start = group.y * sizes.rows * sizes.channels + group.x * width;
  var moments = array<f32, 2>();
  for (var round = 0u; round < 2u; round++) {
    var sum = 0.0;
    for (var i = lane; i < count; i += 64u) {
      let v = x[start + i / width * sizes.channels + i % width];
      if (round == 0u) { sum += v; } else { sum += (v - moments[0]) * (v - moments[0]); }
    }
    workgroupBarrier();
    parts[lane] = sum;
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < 64u; i++) { total += parts[i]; }
    moments[round] = total / f32(count);
  }
  let rstd = inverseSqrt(moments[1] + sizes.epsilon);
  for (var i = lane; i < count; i += 64u) {
    let channel = group.x * width + i % width;
    let at = start + i / width * sizes.channels + i % width;
    y[at] = (x[at] - moments[0]) * rstd * weight[channel] + bias[channel];
  }
}
