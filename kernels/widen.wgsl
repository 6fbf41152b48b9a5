// y[r, n] = stages(x[r, n] + sum_k narrow[r, k] wide[n, k]), x being zero where there is none; `wide` as shared/low_rank says.
// x, y [rows, channels] f32, y is overwritten; narrow [rows, rank]. {{ tile }} rows by {{ 4 * lanes }} outputs a workgroup, rows from the
// workgroup's number alone. `channels` counts vectors of {{ vector_out }}.
//% import "shared/stages" as st
//% import "shared/low_rank" as lr
//% set VO = "vec4<f32>" if vector_out == 4 else "f32"
struct Sizes {
  rows: u32,
  channels: u32,
{{ lr.members(low_rank) }}
{{ st.members(stages, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> y: array<{{ VO }}>;
{{ lr.bindings(low_rank, 2) }}
//% if based
@group(0) @binding(4) var<storage, read> x: array<{{ VO }}>;
//% endif
{{ st.bindings(stages, 5, VO) }}
{{ st.functions(stages, VO) }}

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y + group.z * 32768u) * {{ tile }}u;
  let quad = group.x * {{ lanes }}u + lane;
  if (first >= sizes.rows || quad * {{ 4 // vector_out }}u >= sizes.channels) { return; }
//% for i in range(tile)
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u);
  var c{{ i }} = vec4<f32>();
//% endfor
{{ lr.accumulate(low_rank, vector_out, tile, "quad", "c", "row") }}
//% for i in range(tile)
  if (first + {{ i }}u < sizes.rows) {
//% for n in range(4 // vector_out)
    {
      let channel = quad * {{ 4 // vector_out }}u + {{ n }}u;
      if (channel < sizes.channels) {
        let index = row{{ i }} * sizes.channels + channel;
        var v = c{{ i }}{{ "." ~ "xyzw"[n] if vector_out == 1 else "" }}{{ " + x[index]" if based else "" }};
{{ st.apply(stages, "v", "row" ~ i, "channel", "index") }}
        y[index] = v;
      }
    }
//% endfor
  }
//% endfor
}
