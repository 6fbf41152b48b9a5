// y = scale * sum over the keys of ds k, ds = p (dy . v - delta), p = exp(scale q . k - lse): the
// contract of attention_queries_gradient.wgsl, by cooperative matrices of {{ size }} x {{ size }}.
// What is multiplied is rounded to f16, sums are f32. What f16 cannot hold becomes its greatest
// number, 65504, not infinity.
// A workgroup makes {{ parts * each * size }} tokens of one head, {{ parts }} subgroups of at most
// {{ lanes }} lanes {{ each * size }} each, from {{ keys }} keys at a time. Heads have {{ d }}
// elements, a multiple of 4; in workgroup memory and registers {{ padded }}, the rest zeros.
// `channels` counts vectors.
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
//% set s_stride = keys + 8
//% set v_start = keys * stride
//% set p_start = 2 * keys * stride
//% set scores = rows * s_stride
//% set slots = invocations // 8
//% set passes = rows // slots
//% set at_once = keys // size
//% set held = "if (subgroup < " ~ parts ~ "u) {" if varying else "{"
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, heads: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> rows: array<vec2<f32>>;
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;
// First q, then dy, [token][{{ stride }}], which go to registers; then k and v [key][{{ stride }}]
// and ds [token][{{ s_stride }}].
var<workgroup> hs: array<f16, {{ [rows * stride, p_start + scores] | max }}>;
// Scores and dy v^T [token][{{ s_stride }}], on their way out sums.
var<workgroup> ss: array<f32, {{ 2 * scores }}>;
const log2_e = 1.4426950408889634;
{{ am.functions() }}

@compute @workgroup_size({{ invocations }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let head = group.y * {{ quads }}u;
  let shared_entry = group.z / sizes.share * sizes.keys;
  let first = group.x * {{ rows }}u;
  let part_row = subgroup{{ " % " ~ parts ~ "u" if varying }} * {{ each * size }}u;
  let scale = sizes.scale * log2_e;
  for (var e = lane; e < {{ size * size }}u; e += {{ invocations }}u) { ss[e] = 0.0; }
//% for tensor, name in [("q", "q"), ("dy", "d")]
  workgroupBarrier();
{{ am.stage(tensor, 0, rows, d, padded, stride, invocations,
  "group.z * sizes.tokens + min(first + line, sizes.tokens - 1u)") }}
  workgroupBarrier();
{{ am.take(name, matrix, size, each, columns, stride) }}
//% endfor
  let zero = coopLoadT<{{ matrix }}<f32, C>>(&ss[0], {{ size }}u);
//% for i in range(each)
//% for j in range(columns)
  var c{{ i }}_{{ j }} = zero;
//% endfor
//% endfor
  let slot = lane / 8u;
  let eighth = lane % 8u;
//% for p in range(passes)
  let row{{ p }} = slot + {{ p * slots }}u;
  let kept{{ p }} = rows[
    (group.z * sizes.tokens + min(first + row{{ p }}, sizes.tokens - 1u)) * sizes.heads + group.y];
//% endfor
//% if causal
  let end = min(sizes.keys, first + {{ rows }}u); // later ones are seen by no token of this group
//% else
  let end = sizes.keys;
//% endif
  for (var tile = 0u; tile < end; tile += {{ keys }}u) {
    workgroupBarrier();
    // Always 0, but no compiler knows: see attention_matrices.wgsl.
    let here = (tile >> 31u) * 8u;
//% for tensor, start in [("k", 0), ("v", v_start)]
{{ am.stage(tensor, start, keys, d, padded, stride, invocations,
  "shared_entry + min(tile + line, sizes.keys - 1u)") }}
//% endfor
    workgroupBarrier();
    for (var j = 0u; j < {{ keys }}u; j += {{ size }}u) {
//% for name, with, start, to in [("s", "q", 0, 0), ("g", "d", v_start, scores)]
{{ am.scores(name, with, matrix, size, each, columns, start, to, stride, s_stride, held) }}
//% endfor
    }
    workgroupBarrier();
//% for p in range(passes)
//% for e in range(keys // 8)
    {
      let at = row{{ p }} * {{ s_stride }}u + eighth + {{ 8 * e }}u;
      let s = fma(ss[here + at], scale, -kept{{ p }}.x * log2_e);
      let ds = exp2(min(s, 1.0)) * (ss[here + {{ scores }}u + at] - kept{{ p }}.y);
      let seen = tile + eighth + {{ 8 * e }}u < sizes.keys
        {{- " && tile + eighth + " ~ 8 * e ~ "u <= first + row" ~ p if causal }};
      hs[{{ p_start }}u + at] = f16(select(0.0, clamp(ds, -65504.0, 65504.0), seen));
    }
//% endfor
//% endfor
    workgroupBarrier();
    for (var j = 0u; j < {{ keys }}u; j += {{ size }}u) {
//% for i in range(each)
      let p{{ i }} = coopLoadT<{{ matrix }}<f16, A>>(
        &hs[here + {{ p_start }}u + (part_row + {{ i * size }}u) * {{ s_stride }}u + j],
        {{ s_stride }}u);
//% endfor
//% for e in range(columns)
      let k{{ e }} = coopLoadT<{{ matrix }}<f16, B>>(
        &hs[here + j * {{ stride }}u + {{ e * size }}u], {{ stride }}u);
//% for i in range(each)
      c{{ i }}_{{ e }} = coopMultiplyAdd(p{{ i }}, k{{ e }}, c{{ i }}_{{ e }});
//% endfor
//% endfor
    }
  }
//% for j in range(0, columns, at_once)
//% set count = [at_once, columns - j] | min
{{ am.put("c", j, count, size, each, s_stride, held) }}
  for (var e = lane; e < {{ rows * count * size // 4 }}u; e += {{ invocations }}u) {
    let row = e / {{ count * size // 4 }}u;
    let quad = e % {{ count * size // 4 }}u;
    if (first + row < sizes.tokens && quad < {{ quads - j * size // 4 }}u) {
      let at = row * {{ s_stride }}u + quad * 4u;
      y[(group.z * sizes.tokens + first + row) * sizes.channels + head + {{ j * size // 4 }}u
        + quad] = vec4<f32>(ss[at], ss[at + 1u], ss[at + 2u], ss[at + 3u]) * sizes.scale;
    }
  }
//% endfor
}
