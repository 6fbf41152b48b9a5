// y[r, n] = epilogue(sum_k x[r, k] w[n, k]); with a window, row r gathers the pixels under the
// kernel (a convolution).
// x [.., into] f32; w in panels [out / 64][taps][into][64], f16 pairs or f32, or in blocks of 32
// inputs, of one tap; y [rows, channels] is overwritten.
// Register tile: {{ tile }} rows by 64 outputs a workgroup, lanes along the outputs. Rows come from
// the workgroup's number alone, so that x is loaded once for all lanes. No barrier.
// `channels` counts vectors of {{ vector_out }}.
//% tune rows in [16, 8, 24]
//% tune lanes in [8, 4, 16]
//% tune unroll in [1, 4, 8]
//% tune staged in [1, 0]
//% import "shared/epilogue" as ep
//% import "shared/window" as wd
//% import "shared/lora" as lr
//% import "shared/weights" as wt
//% set words = 544 if blocks == "q8_0" else 288
//% set element = "u32" if blocks else ("vec2<u32>" if half else "vec4<f32>")
//% set VI = "vec4<f32>" if vector_in == 4 else "f32"
//% set VO = "vec4<f32>" if vector_out == 4 else "f32"
//% set columns = 16 // lanes
struct Sizes {
  into: u32,
  rows: u32,
  channels: u32,
{{ wd.members(window) }}
{{ lr.members(lora) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ VI }}>;
@group(0) @binding(2) var<storage, read> w: array<{{ element }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ VO }}>;
{{ lr.bindings(lora, 4) }}
{{ ep.bindings(epilogue, 6 if lora else 4, VO) }}
{{ ep.functions(epilogue, VO) }}
{{ wt.functions(blocks) }}

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y + group.z * 32768u) * {{ tile }}u;
  if (first >= sizes.rows) { return; }
  let into = sizes.into / {{ vector_in }}u;
//% for i in range(tile)
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u);
//% if window
  let start{{ i }} = {{ wd.start("row" ~ i) }} * into;
//% else
  let start{{ i }} = row{{ i }} * into;
//% endif
//% for v in range(columns)
  var c{{ i }}_{{ v }} = vec4<f32>();
//% endfor
//% endfor
//% if window
  for (var tap = 0u; tap < sizes.kernel_height * sizes.kernel_width; tap++) {
  let shift = (tap / sizes.kernel_width * sizes.from_width + tap % sizes.kernel_width) * into;
//% if not blocks
  let weights = (group.x * sizes.kernel_height * sizes.kernel_width + tap) * sizes.into * 16u
    + lane * {{ columns }}u;
//% endif
//% else
  {
  const shift = 0u;
//% if not blocks
  let weights = group.x * sizes.into * 16u + lane * {{ columns }}u;
//% endif
//% endif
//% if blocks
  let panel = group.x * (sizes.into / 32u) * {{ words }}u;
  var block = panel;
//% for v in range(columns)
  var f{{ v }} = vec4<f32>();
//% endfor
//% endif
  for (var k = 0u; k < into; k += {{ unroll // vector_in }}u) {
//% if blocks
    let input = k * {{ vector_in }}u;
    if (input % 32u == 0u) {
      block = panel + input / 32u * {{ words }}u;
//% for v in range(columns)
      f{{ v }} = block_factors(block, lane * {{ columns }}u + {{ v }}u);
//% endfor
    }
//% endif
//% for i in range(tile)
//% for q in range([unroll // 4, 1] | max)
    let a{{ i }}_{{ q }} = x[start{{ i }} + shift + k + {{ q }}u];
//% endfor
//% endfor
//% for kk in range(unroll)
//% for v in range(columns)
//% if blocks
    let b{{ kk }}_{{ v }} = f{{ v }} * block_numbers(
      block, lane * {{ columns }}u + {{ v }}u, input % 32u + {{ kk }}u);
//% elif half
    let p{{ kk }}_{{ v }} = w[weights + (k * {{ vector_in }}u + {{ kk }}u) * 16u + {{ v }}u];
    let b{{ kk }}_{{ v }} =
      vec4<f32>(unpack2x16float(p{{ kk }}_{{ v }}.x), unpack2x16float(p{{ kk }}_{{ v }}.y));
//% else
    let b{{ kk }}_{{ v }} = w[weights + (k * {{ vector_in }}u + {{ kk }}u) * 16u + {{ v }}u];
//% endif
//% endfor
//% set part = "." ~ "xyzw"[kk % 4] if vector_in == 4 else ""
//% for i in range(tile)
//% set a = "a" ~ i ~ "_" ~ kk // 4 ~ part
//% for v in range(columns)
    c{{ i }}_{{ v }} = fma(vec4<f32>({{ a }}), b{{ kk }}_{{ v }}, c{{ i }}_{{ v }});
//% endfor
//% endfor
//% endfor
  }
  }
//% if lora
//% for v in range(columns)
//% if vector_out == 4
  let quad{{ v }} = min(group.x * 16u + lane * {{ columns }}u + {{ v }}u, sizes.channels - 1u);
//% else
  let quad{{ v }} = group.x * 16u + lane * {{ columns }}u + {{ v }}u;
//% endif
{{ lr.accumulate(lora, vector_out, tile, "quad" ~ v, "c", "row", "_" ~ v) }}
//% endfor
//% endif
//% for i in range(tile)
  if (first + {{ i }}u < sizes.rows) {
//% for v in range(columns)
//% for n in range(4 // vector_out)
    {
      let channel =
        (group.x * 16u + lane * {{ columns }}u + {{ v }}u) * {{ 4 // vector_out }}u + {{ n }}u;
      if (channel < sizes.channels) {
        let index = row{{ i }} * sizes.channels + channel;
        var v = c{{ i }}_{{ v }}{{ "." ~ "xyzw"[n] if vector_out == 1 else "" }};
{{ ep.apply(epilogue, "v", "row" ~ i, "channel", "index") }}
        y[index] = v;
      }
    }
//% endfor
//% endfor
  }
//% endfor
}
