// y[r, n] = epilogue(sum_k x[r, k] w[n, k]); with a window, row r gathers the pixels under the
// kernel (a convolution).
// The contract of matmul.wgsl for weights in f16 or in blocks, which are widened to f16 (`depth`
// divides 32), by cooperative matrices of {{ size }} x {{ size }}: f16 factors, f32 sums. x is
// rounded to f16 on its way into workgroup memory, and what f16 cannot hold becomes its greatest
// number, 65504, not infinity.
// A workgroup makes {{ down * each_rows * size }} rows by {{ across * each_columns * size }}
// outputs, {{ down }} x {{ across }} subgroups of at most {{ lanes }} lanes {{ each_rows }} x
// {{ each_columns }} matrices each, from {{ depth }} inputs at a time; the next ones are loaded
// meanwhile. `channels` counts vectors{{ " of one" if odd_outputs }}.
//% if backwards
// w is read backwards: w[k, n] instead of w[n, k], in panels [into / 64][taps][outputs][64], taps
// from the last to the first. It lies [output][input] in workgroup memory, too.
//% endif
//% if gated
// Outputs are values and, from 4 * channels on, gates: what is stored of a value and its gate is
// value * gelu(gate), both after the epilogue, which reads nothing but vectors of all outputs.
//% endif
//% if totals
// Of what is stored it sums up channels, totals [rows / {{ each_rows * size }}][2][4 * channels]:
// means, and squared deviations from them. Workgroups have no rows but those that are there.
//% endif
//% if parted
// `steps` of the loop alone: partial sums, y [part, row, output], which matmul_sums adds up; a part
// is a layer of workgroups.
//% endif
//% if varying
// Of subgroups that are smaller than that there are more than parts: those left over repeat what
// others do, and store nothing.
//% endif
enable f16;
enable wgpu_cooperative_matrix;
//% import "shared/epilogue" as ep
//% import "shared/window" as wd
//% import "shared/lora" as lr
//% import "shared/weights" as wt
//% set words = 544 if blocks == "q8_0" else 288
//% set rows = down * each_rows * size
//% set columns = across * each_columns * size
//% set parts = down * across
//% set invocations = parts * lanes
//% set quads = depth // 4
//% set column_quads = columns // 4
//% set x_loads = rows * quads // invocations
//% set w_loads = depth * column_quads // invocations
//% set x_stride = depth + 8
//% set w_stride = depth + 8 if backwards else columns + 8
//% set matrix = "coop_mat" ~ size ~ "x" ~ size
//% set V = "f32" if odd_outputs else "vec4<f32>"
//% set each_out = 1 if odd_outputs else 4
//% set each_in = 1 if odd_inputs else 4
struct Sizes {
  into: u32,
  rows: u32,
  channels: u32,
//% if parted
  steps: u32,
//% endif
{{ wd.members(window) }}
{{ lr.members(lora) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ "f32" if odd_inputs else "vec4<f32>" }}>;
@group(0) @binding(2) var<storage, read> w: array<{{ "u32" if blocks else "vec4<f16>" }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ V }}>;
{{ lr.bindings(lora, 4) }}
{{ ep.bindings(epilogue, 6 if lora else 4, V) }}
{{ ep.functions(epilogue, V) }}
//% if gated
{{ ep.gelu(V) }}
//% endif
{{ wt.functions(blocks) }}
//% if totals
@group(0) @binding(9) var<storage, read_write> totals: array<f32>;
//% endif
// Rows end in 16 bytes of nothing, so that those of a matrix lie in different banks.
var<workgroup> xs: array<f16, {{ rows * x_stride }}>; // [row][input]
//% if backwards
var<workgroup> ws: array<f16, {{ columns * w_stride }}>; // [output][input]
//% else
var<workgroup> ws: array<f16, {{ depth * w_stride }}>; // [input][output]
//% endif
var<workgroup> ys: array<f32, {{ parts * 256 }}>; // [part][16 rows][16 outputs]

// Stores the 16 x 16 sums of each part that stand in `ys`; `row` and `channel` are those of the
// first part's corner.
//% set of_row = 16 // each_out
fn store(lane: u32, {{ "plane: u32, " if parted }}corner_row: u32, corner_channel: u32) {
//% set of_all = parts * 16 * of_row // (2 if gated else 1)
  for (var e = lane; e < {{ of_all }}u; e += {{ invocations }}u) {
    let part = e / {{ 16 * of_row }}u;
    let place = e % {{ 16 * of_row }}u;
//% if gated
    let row0 = corner_row + part * {{ each_rows * size }}u + place / {{ of_row }}u;
    let channel = corner_channel + place % {{ of_row }}u;
//% else
    let row0 = corner_row + part / {{ across }}u * {{ each_rows * size }}u + place / {{ of_row }}u;
    let channel =
      corner_channel + part % {{ across }}u * {{ each_columns * size // each_out }}u
      + place % {{ of_row }}u;
//% endif
    if (row0 < sizes.rows && channel < sizes.channels) {
//% if gated
      let at = part * 512u + place * 4u;
      let gate_at = at + 256u;
      let gate = channel + sizes.channels;
      var v0 = vec4<f32>(ys[at], ys[at + 1u], ys[at + 2u], ys[at + 3u]);
      var g0 = vec4<f32>(ys[gate_at], ys[gate_at + 1u], ys[gate_at + 2u], ys[gate_at + 3u]);
{{ lr.accumulate(lora, 4, 1, "channel", "v", "row") }}
{{ lr.accumulate(lora, 4, 1, "gate", "g", "row") }}
{{ ep.apply(epilogue, "v0", "row0", "channel", "0u") }}
{{ ep.apply(epilogue, "g0", "row0", "gate", "0u") }}
      y[row0 * sizes.channels + channel] = v0 * gelu(g0);
//% else
//% if odd_outputs
      var v0 = ys[e];
//% else
      var v0 = vec4<f32>(ys[e * 4u], ys[e * 4u + 1u], ys[e * 4u + 2u], ys[e * 4u + 3u]);
{{ lr.accumulate(lora, 4, 1, "channel", "v", "row") }}
//% endif
      let index =
        {{ "(plane * sizes.rows + row0)" if parted else "row0" }} * sizes.channels + channel;
{{ ep.apply(epilogue, "v0", "row0", "channel", "index") }}
      y[index] = v0;
//% if totals
//% for e in range(4)
      ys[e * 4u + {{ e }}u] = v0.{{ "xyzw"[e] }};
//% endfor
//% endif
//% endif
    }
  }
}

@compute @workgroup_size({{ invocations }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let first = {{ "group.y" if parted else "(group.y + group.z * 32768u)" }} * {{ rows }}u;
  let into = sizes.into{{ " / 4u" if not odd_inputs }};
  let quad = lane % {{ quads }}u;
//% for i in range(x_loads)
  let loaded{{ i }} =
    min(first + lane / {{ quads }}u + {{ i * invocations // quads }}u, sizes.rows - 1u);
//% if window
  let start{{ i }} = {{ wd.start("loaded" ~ i) }} * into + quad{{ " * 4u" if odd_inputs }};
//% else
  let start{{ i }} = loaded{{ i }} * into + quad{{ " * 4u" if odd_inputs }};
//% endif
  var a{{ i }} = vec4<f32>();
//% endfor
//% if window
  let taps = sizes.kernel_height * sizes.kernel_width;
//% else
  const taps = 1u;
//% endif
//% if backwards
  // An output that is not there is read as the last one; what comes of it is not stored.
//% for i in range(w_loads)
  let output{{ i }} = lane / {{ quads }}u + {{ i * invocations // quads }}u;
  let column{{ i }} = min(group.x * {{ columns }}u + output{{ i }}, sizes.channels * 4u - 1u);
  var b{{ i }} = vec4<f16>();
//% endfor
//% else
  // A panel that is not there is read as the last one; what comes of it is not stored.
//% if gated
  // Of the subgroups side by side one has values, the other their gates.
  let side = lane % {{ column_quads }}u;
  let column = group.x * {{ column_quads // 2 }}u + side
    + select(0u, sizes.channels - {{ column_quads // 2 }}u, side >= {{ column_quads // 2 }}u);
  let panel = min(column / 16u, (2u * sizes.channels + 15u) / 16u - 1u);
//% else
  let column = group.x * {{ column_quads }}u + lane % {{ column_quads }}u;
//% set of_panel = 64 // each_out
  let panel =
    min(column / 16u, (sizes.channels + {{ of_panel - 1 }}u) / {{ of_panel }}u - 1u);
//% endif
//% if blocks
  let panel_start = panel * (sizes.into / 32u) * {{ words }}u;
  var f = vec2<u32>();
//% else
  let panel_start = panel * taps * sizes.into * 16u + column % 16u;
//% endif
//% for i in range(w_loads)
  let input{{ i }} = lane / {{ column_quads }}u + {{ i * invocations // column_quads }}u;
  var b{{ i }} = {{ "0u" if blocks else "vec4<f16>()" }};
//% endfor
//% endif
//% set of_chunk = quads * 4 // each_in
  let chunks = (into + {{ of_chunk - 1 }}u) / {{ of_chunk }}u;
//% if parted
  let begin = group.z * sizes.steps;
  let steps = min(begin + sizes.steps, taps * chunks);
//% else
  const begin = 0u;
  let steps = taps * chunks;
//% endif

//% macro load(step)
    {
//% if window
      let tap = {{ step }} / chunks;
      let k = {{ step }} % chunks * {{ quads }}u;
      let shift =
        (tap / sizes.kernel_width * sizes.from_width + tap % sizes.kernel_width) * into
        + k{{ " * 4u" if odd_inputs }};
//% if backwards
      let input = (k + quad) * 4u;
      let weights = (input / 64u * taps + taps - 1u - tap) * sizes.channels * 4u;
//% elif not blocks
      let weights = panel_start + (tap * sizes.into + k * 4u) * 16u;
//% endif
//% else
      let k = {{ step }} * {{ quads }}u;
      let shift = k{{ " * 4u" if odd_inputs }};
//% if backwards
      let input = (k + quad) * 4u;
      let weights = input / 64u * sizes.channels * 4u;
//% elif not blocks
      let weights = panel_start + k * 64u;
//% endif
//% endif
//% if odd_inputs
      let given = (k + quad) * 4u;
//% elif ragged
      let inside = k + quad < into;
//% endif
//% for i in range(x_loads)
//% if odd_inputs
      a{{ i }} = vec4<f32>();
//% for e in range(4)
      if (given + {{ e }}u < into) {
        a{{ i }}.{{ "xyzw"[e] }} = x[start{{ i }} + shift + {{ e }}u];
      }
//% endfor
//% elif ragged
      if (inside) { a{{ i }} = x[start{{ i }} + shift]; } else { a{{ i }} = vec4<f32>(); }
//% else
      a{{ i }} = x[start{{ i }} + shift];
//% endif
//% endfor
//% if blocks
      let block = panel_start + k / 8u * {{ words }}u;
      f = factor_words(block, column % 16u);
//% endif
//% for i in range(w_loads)
//% if backwards
//% if ragged
      if (inside) {
        b{{ i }} = w[(weights + column{{ i }}) * 16u + input % 64u / 4u];
      } else {
        b{{ i }} = vec4<f16>();
      }
//% else
      b{{ i }} = w[(weights + column{{ i }}) * 16u + input % 64u / 4u];
//% endif
//% elif blocks
      b{{ i }} = number_word(block, column % 16u, k * 4u % 32u + input{{ i }});
//% elif ragged
      if (k * 4u + input{{ i }} < sizes.into) {
        b{{ i }} = w[weights + input{{ i }} * 16u];
      } else {
        b{{ i }} = vec4<f16>();
      }
//% else
      b{{ i }} = w[weights + input{{ i }} * 16u];
//% endif
//% endfor
    }
//% endmacro
  // Sums begin as matrices of zeros from memory: how a matrix is made zero otherwise, languages do
  // not agree on.
  for (var e = lane; e < 256u; e += {{ invocations }}u) { ys[e] = 0.0; }
  workgroupBarrier();
//% for i in range(each_rows)
//% for j in range(each_columns)
  var c{{ i }}_{{ j }} = coopLoadT<{{ matrix }}<f32, C>>(&ys[0], 16u);
//% endfor
//% endfor
  let part = subgroup{{ " % " ~ parts ~ "u" if varying }};
  let part_row = part / {{ across }}u * {{ each_rows * size }}u;
  let part_column = part % {{ across }}u * {{ each_columns * size }}u;
{{ load("begin") }}
  for (var step = begin; step < steps; step++) {
    workgroupBarrier();
//% for i in range(x_loads)
    {
      let h = vec4<f16>(clamp(a{{ i }}, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
      let to =
        (lane / {{ quads }}u + {{ i * invocations // quads }}u) * {{ x_stride }}u + quad * 4u;
//% for e in range(4)
      xs[to + {{ e }}u] = h.{{ "xyzw"[e] }};
//% endfor
    }
//% endfor
//% for i in range(w_loads)
    {
//% if backwards
      let to = output{{ i }} * {{ w_stride }}u + quad * 4u;
//% else
      let to = input{{ i }} * {{ w_stride }}u + lane % {{ column_quads }}u * 4u;
//% endif
//% if blocks
      let wide = factors_of(f) * numbers_of(b{{ i }});
      let h = vec4<f16>(clamp(wide, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
//% endif
//% for e in range(4)
      ws[to + {{ e }}u] = {{ "h" if blocks else "b" ~ i }}.{{ "xyzw"[e] }};
//% endfor
    }
//% endfor
    workgroupBarrier();
    let next = step + 1u;
    if (next < steps) {
{{ load("next") }}
    }
    for (var k = 0u; k < {{ depth }}u; k += {{ size }}u) {
//% for i in range(each_rows)
      let x{{ i }} = coopLoadT<{{ matrix }}<f16, A>>(
        &xs[(part_row + {{ i * size }}u) * {{ x_stride }}u + k], {{ x_stride }}u);
//% endfor
//% for j in range(each_columns)
//% if backwards
      let w{{ j }} = coopLoad<{{ matrix }}<f16, B>>(
        &ws[(part_column + {{ j * size }}u) * {{ w_stride }}u + k], {{ w_stride }}u);
//% else
      let w{{ j }} = coopLoadT<{{ matrix }}<f16, B>>(
        &ws[k * {{ w_stride }}u + part_column + {{ j * size }}u], {{ w_stride }}u);
//% endif
//% for i in range(each_rows)
      c{{ i }}_{{ j }} = coopMultiplyAdd(x{{ i }}, w{{ j }}, c{{ i }}_{{ j }});
//% endfor
//% endfor
    }
  }
//% set tiles = 16 // size
//% set turns = (parts * 16 + invocations - 1) // invocations
//% if totals
//% for t in range(turns)
//% for j in range(0, each_columns, tiles)
  var mean{{ t }}_{{ j }} = 0.0;
  var square{{ t }}_{{ j }} = 0.0;
//% endfor
//% endfor
//% endif
//% for i in range(0, each_rows, tiles)
//% for j in range(0, each_columns, tiles)
  workgroupBarrier();
{{ "  if (subgroup < " ~ parts ~ "u) {" if varying else "  {" }}
//% for u in range(tiles)
//% for v in range(tiles)
    // naga wants everything that is stored, and where, computed by a statement of its own.
    let to{{ u }}_{{ v }} = &ys[part * 256u + {{ u * size * 16 + v * size }}u];
    let sum{{ u }}_{{ v }} = c{{ i + u }}_{{ j + v }};
    coopStoreT(sum{{ u }}_{{ v }}, to{{ u }}_{{ v }}, 16u);
//% endfor
//% endfor
  }
  workgroupBarrier();
  store(lane, {{ "group.z, " if parted }}first + {{ i * size }}u,
    group.x * {{ columns // each_out // (2 if gated else 1) }}u + {{ j * size // each_out }}u);
//% if totals
  workgroupBarrier();
//% for t in range(turns)
  {
    // A column of 16 rows, added to those above it by Chan's formula.
    let at = min(lane + {{ t * invocations }}u, {{ parts * 16 - 1 }}u);
    let start = at / 16u * 256u + at % 16u;
    let shift = ys[start];
    var sum = 0.0;
    var squares = 0.0;
    for (var r = 0u; r < 16u; r++) {
      let d = ys[start + r * 16u] - shift;
      sum += d;
      squares = fma(d, d, squares);
    }
    let apart = shift + sum / 16.0 - mean{{ t }}_{{ j }};
    mean{{ t }}_{{ j }} += apart * {{ 16 / (i * size + 16) }};
    square{{ t }}_{{ j }} += max(squares - sum * sum / 16.0, 0.0)
      + apart * apart * {{ i * size * 16 / (i * size + 16) }};
  }
//% endfor
//% endif
//% endfor
//% endfor
//% if totals
//% for t in range(turns)
  if (lane + {{ t * invocations }}u < {{ parts * 16 }}u) {
    let at = lane + {{ t * invocations }}u;
    let of_part = at / 16u;
    let chunk = first / {{ each_rows * size }}u + of_part / {{ across }}u;
    let start = group.x * {{ columns }}u + of_part % {{ across }}u * {{ each_columns * size }}u
      + at % 16u;
    let to = chunk * 8u * sizes.channels + start;
//% for j in range(0, each_columns, tiles)
    if (start + {{ j * size }}u < 4u * sizes.channels) {
      totals[to + {{ j * size }}u] = mean{{ t }}_{{ j }};
      totals[to + {{ j * size }}u + 4u * sizes.channels] = square{{ t }}_{{ j }};
    }
//% endfor
  }
//% endfor
//% endif
}
