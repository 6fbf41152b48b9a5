// y[r, c] = epilogue(x[r, c] * gelu(x[r, channels + c])). x [rows, 2 channels]; y [rows, channels]
// is overwritten.
//% import "shared/epilogue" as ep
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes {
  rows: u32,
  channels: u32,
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ V }}>;
{{ ep.bindings(epilogue, 3, V) }}
{{ ep.functions(epilogue | rejectattr("kind", "eq", "gelu"), V) }}
{{ ep.gelu(V) }}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.rows * sizes.channels) { return; }
  let row = i / sizes.channels;
  let channel = i % sizes.channels;
  let at = row * sizes.channels * 2u + channel;
  var v = x[at] * gelu(x[at + sizes.channels]);
{{ ep.apply(epilogue, "v", "row", "channel", "i") }}
  y[i] = v;
}
