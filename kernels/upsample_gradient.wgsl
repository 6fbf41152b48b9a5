// y[py, px] = epilogue(sum of x[oy, ox] over the pixels with floor(oy * height / from_height) = py,
// and px alike), with zeros around it.
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
  let to_y = row / sizes.width % sizes.height;
  let to_x = row % sizes.width;
  let entry = row / (sizes.width * sizes.height);
  // The first pixel that shows this one, and the first that shows the next.
  let last_y = ((to_y + 1u) * sizes.from_height + sizes.height - 1u) / sizes.height;
  let last_x = ((to_x + 1u) * sizes.from_width + sizes.width - 1u) / sizes.width;
  var v = {{ V }}();
  for (var fy = (to_y * sizes.from_height + sizes.height - 1u) / sizes.height; fy < last_y; fy++) {
    let line = (entry * sizes.from_height + fy) * sizes.from_width;
    for (var fx = (to_x * sizes.from_width + sizes.width - 1u) / sizes.width; fx < last_x; fx++) {
      v += x[(line + fx) * sizes.channels + channel];
    }
  }
{{ ep.apply(epilogue, "v", "row", "channel", "index") }}
  y[i] = v;
}
