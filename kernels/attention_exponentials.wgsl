// y[row, n] = 2^(y[row, n] - y[peaks + row]) and y[sums + row chunks + n / {{ width }}] = the sum of a chunk's. `columns` of a row, a multiple of {{ width }}.
// {{ tile }} rows by {{ width }} columns a workgroup of {{ lanes }} lanes. Straight-line code, as matmul_vectors.wgsl;
// `opaque` is 0, which a compiler must not know.
//% if not stored
// Only the sums are stored.
//% endif
//% import "shared/vectors" as vectors
//% set columns = width // lanes
struct Sizes { rows: u32, columns: u32, start: u32, peaks: u32, sums: u32, chunks: u32, opaque: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
{{ vectors.spread("f32", lanes) }}

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  const most = 0x0fffffffu;
  let first = group.y * {{ tile }}u;
//% for i in range(tile)
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u);
  let y{{ i }} = (sizes.start + row{{ i }} * sizes.columns + group.x * {{ width }}u + sizes.opaque) & most;
  let peak{{ i }} = y[sizes.peaks + row{{ i }}];
//% for v in range(columns)
  let p{{ i }}_{{ v }} = exp2({{ vectors.load("f32", lanes, "y", "y" ~ i, v * lanes) }} - peak{{ i }});
//% endfor
  let sum{{ i }} = subgroupAdd(p{{ i }}_0{% for v in range(1, columns) %} + p{{ i }}_{{ v }}{% endfor %});
//% endfor
  // The stores wait for all sums, and rows beyond the last are that row again, see matmul_vectors.wgsl.
  let wait = select(0u, sizes.opaque, sum0{% for i in range(1, tile) %} + sum{{ i }}{% endfor %} > 3.0e38);
//% for i in range(tile)
//% if stored
  let z{{ i }} = (y{{ i }} + wait) & most;
//% for v in range(columns)
{{ vectors.store(lanes, "y", "z" ~ i, v * lanes, "p" ~ i ~ "_" ~ v) }}
//% endfor
//% endif
  y[sizes.sums + row{{ i }} * sizes.chunks + group.x + wait] = sum{{ i }};
//% endfor
}
