// y = epilogue(x), with zeros around the feature map where the graph asked for them.
// x [rows, channels], y the same or padded; y is overwritten. Sizes count vectors of {{ vector }}.
//% import "shared/epilogue" as ep
//% import "shared/grid" as grid
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes {
{{ grid.members(padded) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ V }}>;
{{ ep.bindings(epilogue, 3, V) }}
{{ ep.functions(epilogue, V) }}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
{{ grid.place(padded, V) }}
  let index = row * sizes.channels + channel;
  var v = x[index];
{{ ep.apply(epilogue, "v", "row", "channel", "index") }}
  y[i] = v;
}
