// y[r, n] = epilogue(sum over parts of partial[part, r, n]), part after part: what several
// workgroups of matmul_matrices made of one product.
// partial [parts, rows, channels], y [rows, channels]; y is overwritten. `channels` counts vectors.
//% if gated
// partial [parts, rows, 2 channels], values and then gates: y is value * gelu(gate), both after the
// epilogue, which reads nothing but vectors of all outputs.
//% endif
//% import "shared/epilogue" as ep
//% import "shared/lora" as lr
struct Sizes {
  parts: u32,
  rows: u32,
  channels: u32,
{{ lr.members(lora) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> partial: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
{{ lr.bindings(lora, 3) }}
{{ ep.bindings(epilogue, 5 if lora else 3, "vec4<f32>") }}
{{ ep.functions(epilogue, "vec4<f32>") }}
//% if gated
{{ ep.gelu("vec4<f32>") }}
//% endif

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let index = (group.x + group.y * 32768u) * 64u + lane;
  let elements = sizes.rows * sizes.channels;
  if (index >= elements) { return; }
  let row0 = index / sizes.channels;
  let channel = index % sizes.channels;
//% if gated
  let gate = channel + sizes.channels;
  let value_at = row0 * sizes.channels * 2u + channel;
  let gate_at = value_at + sizes.channels;
  var v0 = partial[value_at];
  var g0 = partial[gate_at];
  for (var part = 1u; part < sizes.parts; part++) {
    v0 += partial[part * elements * 2u + value_at];
    g0 += partial[part * elements * 2u + gate_at];
  }
{{ lr.accumulate(lora, 4, 1, "channel", "v", "row") }}
{{ lr.accumulate(lora, 4, 1, "gate", "g", "row") }}
{{ ep.apply(epilogue, "v0", "row0", "channel", "0u") }}
{{ ep.apply(epilogue, "g0", "row0", "gate", "0u") }}
  y[index] = v0 * gelu(g0);
//% else
  var v0 = partial[index];
  for (var part = 1u; part < sizes.parts; part++) { v0 += partial[part * elements + index]; }
{{ lr.accumulate(lora, 4, 1, "channel", "v", "row") }}
{{ ep.apply(epilogue, "v0", "row0", "channel", "index") }}
  y[index] = v0;
//% endif
}
