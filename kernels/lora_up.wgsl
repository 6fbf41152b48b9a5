// y[r, n] = epilogue(x[r, n] + sum_k lora_hidden[r, k] lora_up[n, k]), x being zero where there is
// none; `lora_up` as shared/lora says.
// x, y [rows, channels] f32, y is overwritten; lora_hidden [rows, rank]. {{ tile }} rows by
// {{ 4 * lanes }} outputs a workgroup, rows from the workgroup's number alone. `channels` counts
// vectors of {{ vector_out }}.
//% import "shared/epilogue" as ep
//% import "shared/lora" as lr
//% set VO = "vec4<f32>" if vector_out == 4 else "f32"
struct Sizes {
  rows: u32,
  channels: u32,
{{ lr.members(lora) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> y: array<{{ VO }}>;
{{ lr.bindings(lora, 2) }}
//% if based
@group(0) @binding(4) var<storage, read> x: array<{{ VO }}>;
//% endif
{{ ep.bindings(epilogue, 5, VO) }}
{{ ep.functions(epilogue, VO) }}

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = (group.y + group.z * 32768u) * {{ tile }}u;
  let quad = group.x * {{ lanes }}u + lane;
  if (first >= sizes.rows || quad * {{ 4 // vector_out }}u >= sizes.channels) { return; }
//% for i in range(tile)
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u);
  var c{{ i }} = vec4<f32>();
//% endfor
{{ lr.accumulate(lora, vector_out, tile, "quad", "c", "row") }}
//% for i in range(tile)
  if (first + {{ i }}u < sizes.rows) {
//% for n in range(4 // vector_out)
    {
      let channel = quad * {{ 4 // vector_out }}u + {{ n }}u;
      if (channel < sizes.channels) {
        let index = row{{ i }} * sizes.channels + channel;
//% set part = "." ~ "xyzw"[n] if vector_out == 1 else ""
        var v = c{{ i }}{{ part }}{{ " + x[index]" if based else "" }};
{{ ep.apply(epilogue, "v", "row" ~ i, "channel", "index") }}
        y[index] = v;
      }
    }
//% endfor
  }
//% endfor
}
