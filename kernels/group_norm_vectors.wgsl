// y = epilogue(x * affine[entry, 0] + affine[entry, 1]), with zeros around the feature map where the graph asked for them.
// x [batch, rows_per_entry, channels]; affine [batch, 2, channels]; y is overwritten. {{ columns * lanes }} channels of a row of the output a workgroup of
// {{ lanes }} lanes; rows beyond the last are that row again. Straight-line code, as matmul_vectors.wgsl; `opaque` is 0, which a compiler must not know.
//% import "shared/epilogue" as ep
//% import "shared/grid" as grid
//% import "shared/vectors" as vectors
struct Sizes {
  rows_per_entry: u32,
  opaque: u32,
{{ grid.members(padded) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> affine: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{ ep.bindings(epilogue, 4, "f32") }}
{{ ep.functions(epilogue, "f32") }}
{{ vectors.spread("f32", lanes) }}

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  const most = 0x0fffffffu;
  let at = min(group.y + group.z * groups.y, sizes.rows - 1u);
  let column = group.x * {{ columns * lanes }}u;
//% if padded
  let line = at / sizes.padded_width;
  let px = at % sizes.padded_width - sizes.left;
  let py = line % sizes.padded_height - sizes.top;
  let inside = px < sizes.width && py < sizes.height; // what is left of them, or above, is huge
  let row = select(0u, (line / sizes.padded_height * sizes.height + py) * sizes.width + px, inside);
//% else
  let row = at;
//% endif
  let place = (row * sizes.channels + column + sizes.opaque) & most;
  let factors = (row / sizes.rows_per_entry * 2u * sizes.channels + column + sizes.opaque) & most;
  let summands = (factors + sizes.channels) & most;
//% for v in range(columns)
  var v{{ v }} = fma(
    {{ vectors.load("f32", lanes, "x", "place", v * lanes) }},
    {{ vectors.load("f32", lanes, "affine", "factors", v * lanes) }},
    {{ vectors.load("f32", lanes, "affine", "summands", v * lanes) }});
  {
    let channel = column + {{ v * lanes }}u + lane;
    let index = row * sizes.channels + channel;
{{ ep.apply(epilogue, "v" ~ v, "row", "channel", "index") }}
  }
//% if padded
  v{{ v }} = select(0.0, v{{ v }}, inside);
//% endif
//% endfor
  let all = v0{% for v in range(1, columns) %} + v{{ v }}{% endfor %};
  let wait = select(0u, sizes.opaque, subgroupBroadcast(all, 0u) > 3.0e38);
  let to = (at * sizes.channels + column + wait) & most;
//% for v in range(columns)
{{ vectors.store(lanes, "y", "to", v * lanes, "v" ~ v) }}
//% endfor
}
