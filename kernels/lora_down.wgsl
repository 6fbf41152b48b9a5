// y[r, n] = epilogue(sum_k x[r, k] w[n, k]) for few n; in form "columns" w lies as [k, n], in form
// "window" as [n, k, taps] and row r gathers the pixels under the kernel. x [.., into] f32; w f32
// as in the file; y [rows, channels] is overwritten.
// A workgroup makes {{ tile }} rows by {{ outputs }} outputs: its {{ lanes }} lanes take every
// {{ lanes }}th vector of inputs each, then add up through workgroup memory in a fixed order.
// `into` counts vectors of {{ vector_in }}.
//% tune lanes in [64, 16, 32]
//% tune rows in [4, 8]
//% tune outputs in [4, 8]
//% import "shared/epilogue" as ep
//% import "shared/window" as wd
//% set VI = "vec4<f32>" if vector_in == 4 else "f32"
//% set VW = "vec4<f32>" if vector_w == 4 else "f32"
//% set window = form == "window"
struct Sizes {
  into: u32,
  rows: u32,
  channels: u32,
{{ wd.members(window) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ VI }}>;
@group(0) @binding(2) var<storage, read> w: array<{{ VW }}>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{ ep.bindings(epilogue, 4, "f32") }}
{{ ep.functions(epilogue, "f32") }}
var<workgroup> sums: array<f32, {{ lanes * tile * outputs }}>; // [lane][row][output]

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y + group.z * 32768u) * {{ tile }}u;
  let output = group.x * {{ outputs }}u;
//% for o in range(outputs)
  let o{{ o }} = min(output + {{ o }}u, sizes.channels - 1u);
//% endfor
//% for i in range(tile)
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u);
//% if window
  let start{{ i }} = {{ wd.start("row" ~ i) }} * sizes.into;
//% else
  let start{{ i }} = row{{ i }} * sizes.into;
//% endif
//% for o in range(outputs)
  var c{{ i }}_{{ o }} = 0.0;
//% endfor
//% endfor
//% if window
  let taps = sizes.kernel_height * sizes.kernel_width;
  for (var tap = 0u; tap < taps; tap++) {
  let shift = (tap / sizes.kernel_width * sizes.from_width + tap % sizes.kernel_width) * sizes.into;
//% else
  {
  const shift = 0u;
//% endif
  for (var k = lane; k < sizes.into; k += {{ lanes }}u) {
//% for i in range(tile)
    let a{{ i }} = x[start{{ i }} + shift + k];
//% endfor
//% if form == "rows"
//% for o in range(outputs)
    let b{{ o }} = w[o{{ o }} * sizes.into + k];
//% endfor
//% else
//% for kk in range(vector_in)
    let k{{ kk }} = k * {{ vector_in }}u + {{ kk }}u;
//% if form == "window"
//% for o in range(outputs)
    let b{{ kk }}_{{ o }} = w[(o{{ o }} * sizes.into * {{ vector_in }}u + k{{ kk }}) * taps + tap];
//% endfor
//% elif vector_w == 4
//% for o in range(0, outputs, 4)
    let b{{ kk }}_{{ o }} = w[k{{ kk }} * (sizes.channels / 4u) + o{{ o }} / 4u];
//% endfor
//% else
//% for o in range(outputs)
    let b{{ kk }}_{{ o }} = w[k{{ kk }} * sizes.channels + o{{ o }}];
//% endfor
//% endif
//% endfor
//% endif
//% for kk in range(vector_in)
//% set part = "." ~ "xyzw"[kk] if vector_in == 4 else ""
//% for i in range(tile)
//% for o in range(outputs)
//% if form == "rows"
    c{{ i }}_{{ o }} = fma(a{{ i }}{{ part }}, b{{ o }}{{ part }}, c{{ i }}_{{ o }});
//% elif vector_w == 4
    c{{ i }}_{{ o }} =
      fma(a{{ i }}{{ part }}, b{{ kk }}_{{ o // 4 * 4 }}.{{ "xyzw"[o % 4] }}, c{{ i }}_{{ o }});
//% else
    c{{ i }}_{{ o }} = fma(a{{ i }}{{ part }}, b{{ kk }}_{{ o }}, c{{ i }}_{{ o }});
//% endif
//% endfor
//% endfor
//% endfor
  }
  }
//% for i in range(tile)
//% for o in range(outputs)
  sums[lane * {{ tile * outputs }}u + {{ i * outputs + o }}u] = c{{ i }}_{{ o }};
//% endfor
//% endfor
  workgroupBarrier();
  for (var slot = lane; slot < {{ tile * outputs }}u; slot += {{ lanes }}u) {
    let row = first + slot / {{ outputs }}u;
    let channel = output + slot % {{ outputs }}u;
    if (row < sizes.rows && channel < sizes.channels) {
      let index = row * sizes.channels + channel;
      var v = sums[slot];
//% for l in range(1, lanes)
      v += sums[slot + {{ l * tile * outputs }}u];
//% endfor
{{ ep.apply(epilogue, "v", "row", "channel", "index") }}
      y[index] = v;
    }
  }
}
