// c[r, n] += sum_k a[r, k] b[k, n] over {{ chunk }} inputs, for one head of one batch entry (z); {{ 'with all inputs' if whole else 'with `first`' }}, c is overwritten. a's and b's rows
// are `a_row` and `b_row` elements apart, their neighbours next to each other. {{ tile }} rows by {{ columns * lanes }} columns a workgroup of {{ lanes }}
// lanes; columns fill workgroups{{ ", the last vector overlapping the one before it" if overlapping }}. Straight-line code for drivers that compile a subgroup to one vector, as matmul_vectors.wgsl.
//% if within
// a is an array of its own; b and c are parts of `c`.
//% endif
//% if tail == "scores"
// Last chunk: c = scale c where column n < `visible`{{ {"": "", "up to": " and n <= first_row + r", "from": " and n >= first_row + r"}[causal] }}, elsewhere so little that its exponential is 0{{ "; every row's greatest
// number here goes to c[peaks + row tiles + n / " ~ columns * lanes ~ "]" if peaks }}. `scale` includes log2(e).
//% elif tail == "scaled"
// Last chunk: c = scale c.
//% elif tail == "added"
// c = the sum a[factors + row] + (0 if `fresh`, else c): every chunk is complete.
//% endif
//% if chosen
// Row r of {{ chosen }} is the row chosen[first_chosen + r] of its entry.
//% endif
//% import "shared/vectors" as vectors
//% set B = "c" if within else "b"
//% set width = columns * lanes - overlapping
struct Sizes {
  rows: u32,
  heads: u32,
  first: u32,
  a_start: u32,
  a_row: u32,
  a_head: u32,
  a_entry: u32,
  b_start: u32,
  b_row: u32,
  b_head: u32,
  b_entry: u32,
  share: u32,
  c_start: u32,
  c_row: u32,
  c_head: u32,
  c_entry: u32,
//% if tail == "scores"
  visible: u32,
  first_row: u32,
  peaks: u32,
  tiles: u32,
//% elif tail == "added"
  factors: u32,
  fresh: u32,
//% endif
//% if chosen
  first_chosen: u32,
//% endif
//% if tail in ["scores", "scaled"]
  scale: f32,
//% endif
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> a: array<f32>;
//% if not within
@group(0) @binding(2) var<storage, read> b: array<f32>;
//% endif
@group(0) @binding({{ 2 if within else 3 }}) var<storage, read_write> c: array<f32>;
//% if chosen
@group(0) @binding({{ 3 if within else 4 }}) var<storage, read> chosen: array<u32>;
//% endif
{{ vectors.spread("f32", lanes) }}

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  // Indices are below 2^28: said here, so that the sums of index and constant below are known not to overflow.
  const most = 0x0fffffffu;
  let first = group.y * {{ tile }}u;
  let column = group.x * {{ width }}u;
  let entry = group.z / sizes.heads;
  let head = group.z % sizes.heads;
  let opaque = sizes.first / 2u; // 0
  let b_base = sizes.b_start + entry / sizes.share * sizes.b_entry + head * sizes.b_head + column;
  let a_base = sizes.a_start + entry * sizes.a_entry + head * sizes.a_head;
  let c_base = sizes.c_start + entry * sizes.c_entry + head * sizes.c_head + column + opaque;
//% for i in range(tile)
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u);
//% if chosen
  let chosen{{ i }} = chosen[sizes.first_chosen + row{{ i }}];
//% endif
  let a{{ i }} = (a_base + {{ "chosen" if chosen == "a" else "row" }}{{ i }} * sizes.a_row) & most;
  let c{{ i }} = (c_base + {{ "chosen" if chosen == "c" else "row" }}{{ i }} * sizes.c_row) & most;
//% for v in range(columns)
//% if whole
  var s{{ i }}_{{ v }} = 0.0;
//% else
  var s{{ i }}_{{ v }} = select({{ vectors.load("f32", lanes, "c", "c" ~ i, [v * lanes, width - lanes] | min) }}, 0.0, sizes.first == 1u);
//% endif
//% endfor
//% if tail == "added"
  let factor{{ i }} = a[sizes.factors + group.z * sizes.rows + row{{ i }}];
//% endif
//% endfor
//% for k in range(chunk)
  let b{{ k }} = (b_base + {{ k }}u * sizes.b_row) & most;
//% for v in range(columns)
  let b{{ k }}_{{ v }} = {{ vectors.load("f32", lanes, B, "b" ~ k, [v * lanes, width - lanes] | min) }};
//% endfor
//% for i in range(tile)
  let a{{ i }}_{{ k }} = a[a{{ i }} + {{ k }}u];
//% for v in range(columns)
  s{{ i }}_{{ v }} = fma(a{{ i }}_{{ k }}, b{{ k }}_{{ v }}, s{{ i }}_{{ v }});
//% endfor
//% endfor
//% endfor
//% if tail == "added"
//% for i in range(tile)
//% for v in range(columns)
  s{{ i }}_{{ v }} = fma(s{{ i }}_{{ v }}, factor{{ i }}, select({{ vectors.load("f32", lanes, "c", "c" ~ i, [v * lanes, width - lanes] | min) }}, 0.0, sizes.fresh == 1u));
//% endfor
//% endfor
//% endif
  // The stores wait for all sums, and rows beyond the last are that row again, see matmul_vectors.wgsl.
  let all = s0_0{% for i in range(tile) %}{% for v in range(columns) %}{% if i + v > 0 %} + s{{ i }}_{{ v }}{% endif %}{% endfor %}{% endfor %};
  let wait = select(0u, opaque, subgroupBroadcast(all, 0u) > 3.0e38);
//% for i in range(tile)
//% for v in range(columns)
//% if tail == "scores"
//% set n = "(column + " ~ ([v * lanes, width - lanes] | min) ~ "u + lane)"
//% set order = {"": "", "up to": " && " ~ n ~ " <= sizes.first_row + row" ~ i, "from": " && " ~ n ~ " >= sizes.first_row + row" ~ i}[causal]
  s{{ i }}_{{ v }} = select(-1e30, s{{ i }}_{{ v }} * sizes.scale, {{ n }} < sizes.visible{{ order }});
//% elif tail == "scaled"
  s{{ i }}_{{ v }} *= sizes.scale;
//% endif
//% endfor
//% if tail == "scores" and peaks
  let peak{{ i }} = subgroupMax({% for v in range(1, columns) %}max(s{{ i }}_{{ v }}, {% endfor %}s{{ i }}_0{% for v in range(1, columns) %}){% endfor %});
//% endif
  let z{{ i }} = (c{{ i }} + wait) & most;
//% for v in range(columns)
{{ vectors.store(lanes, "c", "z" ~ i, [v * lanes, width - lanes] | min, "s" ~ i ~ "_" ~ v) }}
//% endfor
//% if tail == "scores" and peaks
  c[sizes.peaks + (group.z * sizes.rows + row{{ i }}) * sizes.tiles + group.x] = peak{{ i }};
//% endif
//% endfor
}
