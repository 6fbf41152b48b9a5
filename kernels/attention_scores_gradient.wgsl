// Scores s to probabilities p = 2^(s - lse) and their gradients dp to ds = p (dp - delta), for one head of one batch entry (z), where
// they stand: s at `scores`, dp at `gradients`, [entry, head, row, column]. lse and delta are those of the {{ "column" if by_column else "row" }}, from `first_row` on:
// rows [batch, tokens, heads, 2]. {{ tile }} rows by {{ width }} columns a workgroup of {{ lanes }} lanes. Straight-line code, as matmul_vectors.wgsl;
// `opaque` is 0, which a compiler must not know.
//% if not by_column
// p is not stored.
//% endif
//% import "shared/vectors" as vectors
//% set columns = width // lanes
struct Sizes { count: u32, columns: u32, tokens: u32, heads: u32, scores: u32, gradients: u32, first_row: u32, opaque: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> rows: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
{{ vectors.spread("f32", lanes) }}
const log2e = 1.4426950408889634;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  const most = 0x0fffffffu;
  let first = group.y * {{ tile }}u;
  let column = group.x * {{ width }}u;
  let entry = group.z / sizes.heads * sizes.tokens;
  let head = group.z % sizes.heads;
//% if by_column
//% for v in range(columns)
  let at{{ v }} = ((entry + min(column + {{ v * lanes }}u + lane, sizes.tokens - 1u)) * sizes.heads + head) * 2u;
  let lse{{ v }} = rows[at{{ v }}] * log2e;
  let delta{{ v }} = rows[at{{ v }} + 1u];
//% endfor
//% endif
//% for i in range(tile)
  let row{{ i }} = min(first + {{ i }}u, sizes.count - 1u);
  let place{{ i }} = (group.z * sizes.count + row{{ i }}) * sizes.columns + column + sizes.opaque;
  let s{{ i }} = (sizes.scores + place{{ i }}) & most;
  let g{{ i }} = (sizes.gradients + place{{ i }}) & most;
//% if not by_column
  let at{{ i }} = ((entry + sizes.first_row + row{{ i }}) * sizes.heads + head) * 2u;
  let lse{{ i }} = rows[at{{ i }}] * log2e;
  let delta{{ i }} = rows[at{{ i }} + 1u];
//% endif
//% for v in range(columns)
//% set k = v if by_column else i
  let p{{ i }}_{{ v }} = exp2({{ vectors.load("f32", lanes, "y", "s" ~ i, v * lanes) }} - lse{{ k }});
  let d{{ i }}_{{ v }} = p{{ i }}_{{ v }} * ({{ vectors.load("f32", lanes, "y", "g" ~ i, v * lanes) }} - delta{{ k }});
//% endfor
//% endfor
  // The stores wait for all of them, and rows beyond the last are that row again, see matmul_vectors.wgsl.
  let all = d0_0{% for i in range(tile) %}{% for v in range(columns) %}{% if i + v > 0 %} + d{{ i }}_{{ v }}{% endif %}{% endfor %}{% endfor %};
  let wait = select(0u, sizes.opaque, subgroupBroadcast(all, 0u) > 3.0e38);
//% for i in range(tile)
  let s{{ i }}_to = (s{{ i }} + wait) & most;
  let g{{ i }}_to = (g{{ i }} + wait) & most;
//% for v in range(columns)
//% if by_column
{{ vectors.store(lanes, "y", "s" ~ i ~ "_to", v * lanes, "p" ~ i ~ "_" ~ v) }}
//% endif
{{ vectors.store(lanes, "y", "g" ~ i ~ "_to", v * lanes, "d" ~ i ~ "_" ~ v) }}
//% endfor
//% endfor
}
