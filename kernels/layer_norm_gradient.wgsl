// y = epilogue(rstd * (g - mean(g) - n * mean(g n))), g = dy * weight and n = (x - mean) * rstd,
// means over the channels of each row.
// x, dy, y [rows, channels], y is overwritten; a workgroup of 16 takes a row and sums it in a fixed
// order.
//% import "shared/epilogue" as ep
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% macro total(to, from)
  var {{ to }} = 0.0;
//% for i in range(16)
  {{ to }} += {{ from }}[{{ i }}];
//% endfor
//% endmacro
//% macro part(of)
{{ "dot(" ~ of ~ ", vec4<f32>(1.0))" if vector == 4 else of }}
//% endmacro
struct Sizes {
  rows: u32,
  channels: u32,
  epsilon: f32,
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> weight: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> dy: array<{{ V }}>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ V }}>;
{{ ep.bindings(epilogue, 5, V) }}
{{ ep.functions(epilogue, V) }}
var<workgroup> sums: array<f32, 16>;
var<workgroup> squares: array<f32, 16>;
var<workgroup> gs: array<f32, 16>;
var<workgroup> gds: array<f32, 16>;

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.x + group.y * 32768u;
  if (row >= sizes.rows) { return; }
  let start = row * sizes.channels;
  let count = f32(sizes.channels * {{ vector }}u);
  var sum = {{ V }}();
  var g_sum = {{ V }}();
  for (var c = lane; c < sizes.channels; c += 16u) {
    sum += x[start + c];
    g_sum = fma(dy[start + c], weight[c], g_sum);
  }
  sums[lane] = {{ part("sum") }};
  gs[lane] = {{ part("g_sum") }};
  workgroupBarrier();
{{ total("all", "sums") }}
{{ total("all_g", "gs") }}
  let mean = all / count;
  var square = {{ V }}();
  var gd = {{ V }}();
  for (var c = lane; c < sizes.channels; c += 16u) {
    let d = x[start + c] - mean;
    square = fma(d, d, square);
    gd = fma(dy[start + c] * weight[c], d, gd);
  }
  squares[lane] = {{ part("square") }};
  gds[lane] = {{ part("gd") }};
  workgroupBarrier();
{{ total("variance", "squares") }}
{{ total("all_gd", "gds") }}
  let rstd = inverseSqrt(variance / count + sizes.epsilon);
  let mean_g = all_g / count;
  let slope = all_gd / count * rstd * rstd;
  for (var channel = lane; channel < sizes.channels; channel += 16u) {
    var v =
      rstd * (dy[start + channel] * weight[channel] - mean_g - (x[start + channel] - mean) * slope);
{{ ep.apply(epilogue, "v", "row", "channel", "start + channel") }}
    y[start + channel] = v;
  }
}
