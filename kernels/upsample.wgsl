// y[oy, ox] = epilogue(x[floor(oy * from_height / height), floor(ox * from_width / width)]), with
// zeros around it.
// x [batch, from_height, from_width, channels]; y [batch, padded_height, padded_width, channels] is
// overwritten.
//% import "shared/epilogue" as ep
//% import "shared/grid" as grid
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes {
  from_height: u32,
  from_width: u32,
{{ grid.members(true) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ V }}>;
{{ ep.bindings(epilogue, 3, V) }}
{{ ep.functions(epilogue, V) }}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
{{ grid.place(true, V) }}
  let index = row * sizes.channels + channel;
  let from_y = (row / sizes.width) % sizes.height * sizes.from_height / sizes.height;
  let from_x = row % sizes.width * sizes.from_width / sizes.width;
  let entry = row / (sizes.width * sizes.height);
  var v = x[((entry * sizes.from_height + from_y) * sizes.from_width + from_x) * sizes.channels
    + channel];
{{ ep.apply(epilogue, "v", "row", "channel", "index") }}
  y[i] = v;
}
