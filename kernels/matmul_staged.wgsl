// y[r, n] = epilogue(sum_k x[r, k] w[n, k]); with a window, row r gathers the pixels under the
// kernel (a convolution).
// The contract of matmul.wgsl, for devices with real workgroup memory: a workgroup of 256 makes 64
// rows by 64 outputs, 4 x 4 an invocation, from tiles of 16 inputs staged in 8 KiB. `into` and
// outputs are multiples of 4; `channels` counts vectors.
//% if backwards
// w is read backwards: w[k, n] instead of w[n, k], in panels [into / 64][taps][outputs][64], taps
// from the last to the first.
//% endif
//% import "shared/epilogue" as ep
//% import "shared/window" as wd
//% import "shared/lora" as lr
//% import "shared/weights" as wt
//% set words = 544 if blocks == "q8_0" else 288
//% set element = "u32" if blocks else ("vec2<u32>" if half else "vec4<f32>")
struct Sizes {
  into: u32,
  rows: u32,
  channels: u32,
{{ wd.members(window) }}
{{ lr.members(lora) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<{{ element }}>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
{{ lr.bindings(lora, 4) }}
{{ ep.bindings(epilogue, 6 if lora else 4, "vec4<f32>") }}
{{ ep.functions(epilogue, "vec4<f32>") }}
{{ wt.functions(blocks) }}
var<workgroup> xs: array<f32, 1024>; // [input][row]
//% if backwards
// [input][output]: neighbours write one vector's elements, which must not be one vector then
var<workgroup> ws: array<f32, 1024>;
//% else
var<workgroup> ws: array<vec4<f32>, 256>; // [input][output / 4]
//% endif

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y + group.z * 32768u) * 64u;
  let into = sizes.into / 4u;
  let loaded = min(first + lane / 4u, sizes.rows - 1u);
  let part = lane % 4u;
//% if window
  let start = {{ wd.start("loaded") }} * into;
  let taps = sizes.kernel_height * sizes.kernel_width;
//% else
  let start = loaded * into;
  const taps = 1u;
//% endif
//% for i in range(4)
  var c{{ i }} = vec4<f32>();
//% endfor
  for (var tap = 0u; tap < taps; tap++) {
//% if window
    let shift = (tap / sizes.kernel_width * sizes.from_width + tap % sizes.kernel_width) * into;
//% else
    const shift = 0u;
//% endif
//% if not backwards and not blocks
    let weights = (group.x * taps + tap) * sizes.into;
//% endif
//% if blocks and not backwards
    // Of one tap.
    let panel = group.x * (sizes.into / 32u) * {{ words }}u;
    var factors = vec4<f32>();
//% endif
    for (var k = 0u; k < into; k += 4u) {
      var a = vec4<f32>();
      if (k + part < into) { a = x[start + shift + k + part]; }
      var b = vec4<f32>();
//% if backwards
      // Four inputs of one output, from panels of the inputs.
      let input = (k + part) * 4u;
      let column = min(group.x * 64u + lane / 4u, sizes.channels * 4u - 1u);
      if (input < sizes.into) {
//% if blocks
        let block = (input / 64u * (sizes.channels / 8u) + column / 32u) * {{ words }}u;
        let quad = input % 64u / 4u;
        b = block_factors(block, quad) * block_numbers(block, quad, column % 32u);
//% else
        let from_panel = (input / 64u * taps + taps - 1u - tap) * sizes.channels * 4u + column;
//% set at = "from_panel * 16u + input % 64u / 4u"
//% endif
//% else
      let input = k * 4u + lane / 16u;
      if (input < sizes.into) {
//% if blocks
        let block = panel + k / 8u * {{ words }}u;
        if (k % 8u == 0u) { factors = block_factors(block, lane % 16u); }
        b = factors * block_numbers(block, lane % 16u, input % 32u);
//% else
//% set at = "(weights + input) * 16u + lane % 16u"
//% endif
//% endif
//% if blocks
//% elif half
        let p = w[{{ at }}];
        b = vec4<f32>(unpack2x16float(p.x), unpack2x16float(p.y));
//% else
        b = w[{{ at }}];
//% endif
      }
      workgroupBarrier();
      let to = part * 256u + lane / 4u;
      xs[to] = a.x;
      xs[to + 64u] = a.y;
      xs[to + 128u] = a.z;
      xs[to + 192u] = a.w;
//% if backwards
//% for e in range(4)
      ws[(part * 4u + {{ e }}u) * 64u + lane / 4u] = b.{{ "xyzw"[e] }};
//% endfor
//% else
      ws[lane] = b;
//% endif
      workgroupBarrier();
//% for kk in range(16)
      {
        let at = {{ kk * 64 }}u + lane / 16u * 4u;
//% if backwards
        let start_of_b = {{ kk * 64 }}u + lane % 16u * 4u;
        let b{{ kk }} =
          vec4<f32>(ws[start_of_b], ws[start_of_b + 1u], ws[start_of_b + 2u], ws[start_of_b + 3u]);
//% else
        let b{{ kk }} = ws[{{ kk * 16 }}u + lane % 16u];
//% endif
//% for i in range(4)
        c{{ i }} = fma(vec4<f32>(xs[at + {{ i }}u]), b{{ kk }}, c{{ i }});
//% endfor
      }
//% endfor
    }
  }
  let channel = group.x * 16u + lane % 16u;
//% if lora
  let quad = min(channel, sizes.channels - 1u);
//% for i in range(4)
  let row{{ i }} = min(first + lane / 16u * 4u + {{ i }}u, sizes.rows - 1u);
//% endfor
{{ lr.accumulate(lora, 4, 4, "quad", "c", "row") }}
//% endif
  if (channel < sizes.channels) {
//% for i in range(4)
    {
      let row = first + lane / 16u * 4u + {{ i }}u;
      if (row < sizes.rows) {
        let index = row * sizes.channels + channel;
        var v = c{{ i }};
{{ ep.apply(epilogue, "v", "row", "channel", "index") }}
        y[index] = v;
      }
    }
//% endfor
  }
}
