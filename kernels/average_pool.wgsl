// y[oy, ox] = epilogue(mean of x[2 oy .. 2 oy + 2, 2 ox .. 2 ox + 2]), over as many of the four as
// there are.
// x [batch, from_height, from_width, channels]; y [batch, height, width, channels], half the size
// rounded up, with zeros around it where it is padded, is overwritten.
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
  let top = (row / sizes.width) % sizes.height * 2u;
  let left = row % sizes.width * 2u;
  let entry = row / (sizes.width * sizes.height) * sizes.from_height;
  let rows = min(2u, sizes.from_height - top);
  let columns = min(2u, sizes.from_width - left);
  var v = {{ V }}();
  for (var dy = 0u; dy < rows; dy++) {
    for (var dx = 0u; dx < columns; dx++) {
      v += x[((entry + top + dy) * sizes.from_width + left + dx) * sizes.channels + channel];
    }
  }
  v = v / f32(rows * columns);
{{ ep.apply(epilogue, "v", "row", "channel", "index") }}
  y[i] = v;
}
