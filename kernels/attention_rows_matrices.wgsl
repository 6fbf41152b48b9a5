// rows[b, t, h] = (log of the sum of exp(scale q . k) over the keys, y . dy): the contract of
// attention_rows.wgsl, by cooperative matrices of {{ size }} x {{ size }}. q and k are rounded to
// f16, sums are f32. What f16 cannot hold becomes its greatest number, 65504, not infinity.
// A workgroup makes {{ parts * each * size }} tokens of one head, {{ parts }} subgroups of at most
// {{ lanes }} lanes {{ each * size }} each, from {{ keys }} keys at a time. Heads have {{ d }}
// elements, a multiple of 4; in workgroup memory and registers {{ padded }}, the rest zeros.
// `scale` includes log2(e). `channels` counts vectors.
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
//% set slots = invocations // 8
//% set passes = rows // slots
//% set held = "if (subgroup < " ~ parts ~ "u) {" if varying else "{"
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, heads: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dy: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> rows: array<vec2<f32>>;
// First q [token][{{ stride }}], which goes to registers; then k [key][{{ stride }}].
var<workgroup> hs: array<f16, {{ [rows, keys] | max * stride }}>;
var<workgroup> ss: array<f32, {{ rows * s_stride }}>; // scores [token][{{ s_stride }}]
const nothing = -1e30;
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
{{ am.stage("q", 0, rows, d, padded, stride, invocations,
  "group.z * sizes.tokens + min(first + line, sizes.tokens - 1u)") }}
  for (var e = lane; e < {{ size * size }}u; e += {{ invocations }}u) { ss[e] = 0.0; }
  workgroupBarrier();
  let zero = coopLoadT<{{ matrix }}<f32, C>>(&ss[0], {{ size }}u);
{{ am.take("q", matrix, size, each, columns, stride) }}
  // A lane takes every eighth key, for {{ passes }} rows, with a peak and a total of its own.
  let slot = lane / 8u;
  let eighth = lane % 8u;
//% for p in range(passes)
  let row{{ p }} = slot + {{ p * slots }}u;
  var peak{{ p }} = nothing;
  var total{{ p }} = 0.0;
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
{{ am.stage("k", 0, keys, d, padded, stride, invocations,
  "shared_entry + min(tile + line, sizes.keys - 1u)") }}
    workgroupBarrier();
    for (var j = 0u; j < {{ keys }}u; j += {{ size }}u) {
{{ am.scores("s", "q", matrix, size, each, columns, 0, 0, stride, s_stride, held) }}
    }
    workgroupBarrier();
//% for p in range(passes)
    {
      var now = peak{{ p }};
//% for e in range(keys // 8)
      var s{{ e }} = ss[here + row{{ p }} * {{ s_stride }}u + eighth + {{ 8 * e }}u] * sizes.scale;
      s{{ e }} = select(nothing, s{{ e }}, tile + eighth + {{ 8 * e }}u < sizes.keys
        {{- " && tile + eighth + " ~ 8 * e ~ "u <= first + row" ~ p if causal }});
      now = max(now, s{{ e }});
//% endfor
      total{{ p }} *= exp2(peak{{ p }} - now);
      peak{{ p }} = now;
//% for e in range(keys // 8)
      total{{ p }} += select(0.0, exp2(s{{ e }} - now), s{{ e }} > nothing);
//% endfor
    }
//% endfor
  }
  workgroupBarrier();
//% for p in range(passes)
  ss[row{{ p }} * {{ s_stride }}u + eighth] = peak{{ p }};
  ss[row{{ p }} * {{ s_stride }}u + 8u + eighth] = total{{ p }};
//% endfor
  workgroupBarrier();
  for (var row = lane; row < {{ rows }}u; row += {{ invocations }}u) {
    if (first + row < sizes.tokens) {
      var peak = nothing;
      for (var e = 0u; e < 8u; e++) { peak = max(peak, ss[row * {{ s_stride }}u + e]); }
      var total = 0.0;
      for (var e = 0u; e < 8u; e++) {
        total += ss[row * {{ s_stride }}u + 8u + e] * exp2(ss[row * {{ s_stride }}u + e] - peak);
      }
      let token = group.z * sizes.tokens + first + row;
      var delta = 0.0;
      for (var e = 0u; e < {{ quads }}u; e++) {
        let at = token * sizes.channels + head + e;
        delta += dot(y[at], dy[at]);
      }
      rows[token * sizes.heads + group.y] =
        vec2<f32>((peak + log2(total)) * 0.6931471805599453, delta);
    }
  }
}
