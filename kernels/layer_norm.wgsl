// y = epilogue((x - mean) / sqrt(variance + epsilon) * weight + bias), mean and variance over the
// channels of each row.
// x, y [rows, channels], y is overwritten; a workgroup of 16 takes a row and sums it in a fixed
// order.
//% import "shared/epilogue" as ep
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes {
  rows: u32,
  channels: u32,
  epsilon: f32,
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> weight: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> bias: array<{{ V }}>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ V }}>;
{{ ep.bindings(epilogue, 5, V) }}
{{ ep.functions(epilogue, V) }}
var<workgroup> parts: array<f32, 16>;
var<workgroup> squares: array<f32, 16>;

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * 32768u;
  if (row >= sizes.rows) { return; }
  let start = row * sizes.channels;
  let count = f32(sizes.channels * {{ vector }}u);
  var sum = {{ V }}();
  for (var c = lane; c < sizes.channels; c += 16u) { sum += x[start + c]; }
  parts[lane] = {{ "dot(sum, vec4<f32>(1.0))" if vector == 4 else "sum" }};
  workgroupBarrier();
  var total = 0.0;
//% for i in range(16)
  total += parts[{{ i }}];
//% endfor
  let mean = total / count;
  var square = {{ V }}();
  for (var c = lane; c < sizes.channels; c += 16u) {
    let d = x[start + c] - mean;
    square = fma(d, d, square);
  }
  squares[lane] = {{ "dot(square, vec4<f32>(1.0))" if vector == 4 else "square" }};
  workgroupBarrier();
  var variance = 0.0;
//% for i in range(16)
  variance += squares[{{ i }}];
//% endfor
  let rstd = inverseSqrt(variance / count + sizes.epsilon);
  for (var channel = lane; channel < sizes.channels; channel += 16u) {
    var v = (x[start + channel] - mean) * rstd * weight[channel] + bias[channel];
{{ ep.apply(epilogue, "v", "row", "channel", "start + channel") }}
    y[start + channel] = v;
  }
}
