// y[0] = scale * sum over the queries of ds q, y[1] = sum of p dy: the contract of
// attention_keys_values_gradient.wgsl, by cooperative matrices of {{ size }} x {{ size }}. What is
// multiplied is rounded to f16, sums are f32. What f16 cannot hold becomes its greatest number,
// 65504, not infinity.
// A workgroup makes {{ parts * each * size }} keys or values of one head, {{ parts }} subgroups of
// at most {{ lanes }} lanes {{ each * size }} each, from {{ queries }} queries at a time of all
// entries that share them{{ "; y[0] and y[1] by workgroups of their own" if apart }}. Heads have
// {{ d }} elements, a multiple of 4; in workgroup memory and
// registers {{ padded }}, the rest zeros. `channels` counts vectors.
//% if varying
// Of subgroups that are smaller than that there are more than parts: those left over repeat what
// others do, and store nothing.
//% endif
enable f16;
enable wgpu_cooperative_matrix;
//% import "shared/attention_matrices" as am
//% set matrix = "coop_mat" ~ size ~ "x" ~ size
//% set invocations = parts * lanes
//% set rows = parts * each * size
//% set quads = d // 4
//% set columns = padded // size
//% set stride = padded + 8
//% set s_stride = queries + 8
//% set d_start = queries * stride
//% set p_start = 2 * queries * stride
//% set scores = rows * s_stride
//% set slots = invocations // 8
//% set passes = rows // slots
//% set at_once = queries // size
//% set held = "if (subgroup < " ~ parts ~ "u) {" if varying else "{"
struct Sizes {
  tokens: u32,
  keys: u32,
  channels: u32,
  share: u32,
  heads: u32,
  entries: u32,
  scale: f32,
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> rows: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;
// First k, then v, [key][{{ stride }}], which go to registers; then q and dy [query][{{ stride }}],
// ds and p [key][{{ s_stride }}].
var<workgroup> hs: array<f16, {{ [rows * stride, p_start + 2 * scores] | max }}>;
// Scores and v dy^T [key][{{ s_stride }}], on their way out sums.
var<workgroup> ss: array<f32, {{ 2 * scores }}>;
const log2_e = 1.4426950408889634;
{{ am.functions() }}

@compute @workgroup_size({{ invocations }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
//% if apart
  let head_number = group.y / 2u;
  let of_values = group.y % 2u;
//% else
  let head_number = group.y;
//% endif
  let head = head_number * {{ quads }}u;
  let queries = sizes.share * sizes.tokens;
  let entry = group.z * queries;
  let first = group.x * {{ rows }}u;
  let part_row = subgroup{{ " % " ~ parts ~ "u" if varying }} * {{ each * size }}u;
  let scale = sizes.scale * log2_e;
  for (var e = lane; e < {{ size * size }}u; e += {{ invocations }}u) { ss[e] = 0.0; }
//% for tensor in ["k", "v"]
  workgroupBarrier();
{{ am.stage(tensor, 0, rows, d, padded, stride, invocations,
  "group.z * sizes.keys + min(first + line, sizes.keys - 1u)") }}
  workgroupBarrier();
{{ am.take(tensor, matrix, size, each, columns, stride) }}
//% endfor
  let zero = coopLoadT<{{ matrix }}<f32, C>>(&ss[0], {{ size }}u);
//# Sums, where their factors start in `hs`, and whether they are of values.
//% if apart
  let from_p = {{ p_start }}u + of_values * {{ scores }}u;
  let from_b = of_values * {{ d_start }}u;
//% set sums = [("c", "from_p", "from_b")]
//% else
//% set sums = [("c", p_start ~ "u", "0u"), ("e", (p_start + scores) ~ "u", d_start ~ "u")]
//% endif
//% for name, a, b in sums
//% for i in range(each)
//% for j in range(columns)
  var {{ name }}{{ i }}_{{ j }} = zero;
//% endfor
//% endfor
//% endfor
  let slot = lane / 8u;
  let eighth = lane % 8u;
//% for p in range(passes)
  let row{{ p }} = slot + {{ p * slots }}u;
//% endfor
//% if causal
  // Earlier queries see no key of this group; where entries share keys, later ones begin anew.
  let earliest =
    select(0u, first / {{ queries }}u * {{ queries }}u, sizes.share == 1u);
//% else
  const earliest = 0u;
//% endif
  for (var tile = earliest; tile < queries; tile += {{ queries }}u) {
    workgroupBarrier();
    // Always 0, but no compiler knows: see attention_matrices.wgsl.
    let here = (tile >> 31u) * 8u;
//% for tensor, start in [("q", 0), ("dy", d_start)]
{{ am.stage(tensor, start, queries, d, padded, stride, invocations,
  "entry + min(tile + line, queries - 1u)") }}
//% endfor
    workgroupBarrier();
    for (var j = 0u; j < {{ queries }}u; j += {{ size }}u) {
//% for name, with, start, to in [("s", "k", 0, 0), ("g", "v", d_start, scores)]
{{ am.scores(name, with, matrix, size, each, columns, start, to, stride, s_stride, held) }}
//% endfor
    }
    workgroupBarrier();
//% for e in range(queries // 8)
    {
      let query = tile + eighth + {{ 8 * e }}u;
      let kept = rows[(entry + min(query, queries - 1u)) * sizes.heads + head_number];
//% for p in range(passes)
      {
        let at = row{{ p }} * {{ s_stride }}u + eighth + {{ 8 * e }}u;
        let s = fma(ss[here + at], scale, -kept.x * log2_e);
        let seen = query < queries
          {{- " && query % sizes.tokens >= first + row" ~ p if causal }};
        let p = select(0.0, exp2(min(s, 1.0)), seen);
        let ds = p * (ss[here + {{ scores }}u + at] - kept.y);
        hs[{{ p_start }}u + at] = f16(clamp(ds, -65504.0, 65504.0));
        hs[{{ p_start + scores }}u + at] = f16(p);
      }
//% endfor
    }
//% endfor
    workgroupBarrier();
    for (var j = 0u; j < {{ queries }}u; j += {{ size }}u) {
//% for name, a, b in sums
//% for i in range(each)
      let {{ name }}a{{ i }} = coopLoadT<{{ matrix }}<f16, A>>(
        &hs[here + {{ a }} + (part_row + {{ i * size }}u) * {{ s_stride }}u + j],
        {{ s_stride }}u);
//% endfor
//% for e in range(columns)
      let {{ name }}b{{ e }} = coopLoadT<{{ matrix }}<f16, B>>(
        &hs[here + {{ b }} + j * {{ stride }}u + {{ e * size }}u], {{ stride }}u);
//% for i in range(each)
      {{ name }}{{ i }}_{{ e }} =
        coopMultiplyAdd({{ name }}a{{ i }}, {{ name }}b{{ e }}, {{ name }}{{ i }}_{{ e }});
//% endfor
//% endfor
//% endfor
    }
  }
//% for name, a, b in sums
//% if apart
  let to_values = of_values * sizes.entries * sizes.keys * sizes.channels;
  let factor = select(sizes.scale, 1.0, of_values == 1u);
//% elif name == "c"
  let to_keys = 0u;
//% else
  let to_values = sizes.entries * sizes.keys * sizes.channels;
//% endif
//% for j in range(0, columns, at_once)
//% set count = [at_once, columns - j] | min
{{ am.put(name, j, count, size, each, s_stride, held) }}
  for (var e = lane; e < {{ rows * count * size // 4 }}u; e += {{ invocations }}u) {
    let row = e / {{ count * size // 4 }}u;
    let quad = e % {{ count * size // 4 }}u;
    if (first + row < sizes.keys && quad < {{ quads - j * size // 4 }}u) {
      let at = row * {{ s_stride }}u + quad * 4u;
      let sum = vec4<f32>(ss[at], ss[at + 1u], ss[at + 2u], ss[at + 3u]);
      y[{{ "to_keys" if not apart and name == "c" else "to_values" }}
        + (group.z * sizes.keys + first + row) * sizes.channels + head + {{ j * size // 4 }}u
        + quad] = sum{{ " * factor" if apart else " * sizes.scale" if name == "c" }};
    }
  }
//% endfor
//% endfor
}
