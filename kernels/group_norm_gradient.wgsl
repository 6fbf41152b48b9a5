// y = epilogue(factor * dy + slope * (x - mean) + offset), with zeros around the feature map where
// the graph asked for them.
// x, dy [batch, rows_per_entry, channels]; affine [batch, 4, channels]: mean, factor, slope,
// offset; y is overwritten.
//% import "shared/epilogue" as ep
//% import "shared/grid" as grid
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes {
  rows_per_entry: u32,
{{ grid.members(padded) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> dy: array<{{ V }}>;
@group(0) @binding(3) var<storage, read> affine: array<{{ V }}>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ V }}>;
{{ ep.bindings(epilogue, 5, V) }}
{{ ep.functions(epilogue, V) }}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
{{ grid.place(padded, V) }}
  let index = row * sizes.channels + channel;
  let to = row / sizes.rows_per_entry * 4u * sizes.channels + channel;
  let rest =
    fma(x[index] - affine[to], affine[to + 2u * sizes.channels], affine[to + 3u * sizes.channels]);
  var v = fma(dy[index], affine[to + sizes.channels], rest);
{{ ep.apply(epilogue, "v", "row", "channel", "index") }}
  y[i] = v;
}
