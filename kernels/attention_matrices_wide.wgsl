// y = softmax(scale q k^T) v for every head: the contract of attention.wgsl, by cooperative
// matrices of {{ size }} x {{ size }}, for heads too wide for one subgroup's registers. Heads have
// {{ d }} elements, a multiple of 4; {{ padded }} with the zeros behind. q, k, v and the
// exponentials are rounded to f16, sums are f32. What f16 cannot hold becomes its greatest number,
// 65504, not infinity.
// A workgroup makes {{ each * size }} tokens of one head, from {{ parts * size }} keys at a time.
// Its {{ parts }} subgroups of at most {{ lanes }} lanes share keys out while they make scores,
// whose terms come {{ chunk }} elements at a time, and elements of the head while they add up
// values, {{ step }} of which are in workgroup memory at a time. `scale` includes log2(e).
// `channels` counts vectors.
//% if varying
// Of subgroups that are smaller than that there are more than parts: those left over repeat what
// others do, and store nothing.
//% endif
// Exponents are relative to references of tokens, as in attention_matrices.wgsl.
enable f16;
enable wgpu_cooperative_matrix;
//% import "shared/attention_matrices" as am
//% set matrix = "coop_mat" ~ size ~ "x" ~ size
//% set invocations = parts * lanes
//% set rows = each * size
//% set keys = parts * size
//% set quads = d // 4
//% set own = padded // parts
//% set columns = own // size
//% set c_stride = chunk + 8
//% set chunk_quads = chunk // 4
//% set v_stride = padded + 8
//% set s_stride = keys + 8
//% set k_start = rows * c_stride
//% set p_start = [k_start + keys * c_stride, step * v_stride] | max
//% set slots = invocations // 8
//% set passes = rows // slots
//% set held = "if (subgroup < " ~ parts ~ "u) {" if varying else "{"
//% set seen = "select(nothing, s, KEY < sizes.keys)" if ragged else "s"
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, scale: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
// A chunk of q [token][{{ c_stride }}] and of k [key][{{ c_stride }}], or some of v
// [key][{{ v_stride }}]; behind them exponentials [token][{{ s_stride }}]. Rows end in 16 bytes of
// nothing, so that those of a matrix lie in different banks.
var<workgroup> hs: array<f16, {{ p_start + rows * s_stride }}>;
// Scores, and on their way out sums, [token][{{ s_stride }}].
var<workgroup> ss: array<f32, {{ rows * s_stride }}>;
var<workgroup> references: array<f32, {{ rows }}>; // at last totals
var<workgroup> fades: array<f32, {{ rows }}>;
var<workgroup> exceeded: u32; // whether a score of these keys exceeds its reference by too much
const nothing = -1e30;

{{ am.functions() }}
//# Moves every subgroup's sums of its column j to `ss`, side by side.
//% macro put(j)
  workgroupBarrier();
  {{ held }}
//% for i in range(each)
    // naga wants everything that is stored, and where, computed by a statement of its own.
    let to{{ i }} = &ss[{{ i * size * s_stride }}u + part * {{ size }}u];
    let sum{{ i }} = c{{ i }}_{{ j }};
    coopStoreT(sum{{ i }}, to{{ i }}, {{ s_stride }}u);
//% endfor
  }
  workgroupBarrier();
//% endmacro
@compute @workgroup_size({{ invocations }})
fn main(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
  @builtin(subgroup_id) subgroup: u32,
) {
  let head = group.y * {{ quads }}u;
  let shared_entry = group.z / sizes.share * sizes.keys;
  let first = group.x * {{ rows }}u;
  for (var row = lane; row < {{ rows }}u; row += {{ invocations }}u) { references[row] = nothing; }
  // Sums begin as matrices of zeros from memory: how a matrix is made zero otherwise, languages do
  // not agree on.
  for (var e = lane; e < {{ size * size }}u; e += {{ invocations }}u) { ss[e] = 0.0; }
  workgroupBarrier();
  let part = subgroup{{ " % " ~ parts ~ "u" if varying }};
  let zero = coopLoadT<{{ matrix }}<f32, C>>(&ss[0], {{ size }}u);
//% for i in range(each)
//% for j in range(columns)
  var c{{ i }}_{{ j }} = zero;
//% endfor
//% endfor
  // A lane takes the exponentials of every eighth key, for {{ passes }} rows.
  let slot = lane / 8u;
  let eighth = lane % 8u;
//% for p in range(passes)
  let row{{ p }} = slot + {{ p * slots }}u;
  var reference{{ p }} = nothing;
  var total{{ p }} = 0.0;
//% endfor
  for (var tile = 0u; tile < sizes.keys; tile += {{ keys }}u) {
    // Always 0, but no compiler knows: see attention_matrices.wgsl.
    let here = (tile >> 31u) * 8u;
//% for i in range(each)
    var s{{ i }} = zero;
//% endfor
    for (var start = 0u; start < {{ padded // 4 }}u; start += {{ chunk_quads }}u) {
      workgroupBarrier();
      for (var e = lane; e < {{ (rows + keys) * chunk_quads }}u; e += {{ invocations }}u) {
        let line = e / {{ chunk_quads }}u;
        let quad = start + e % {{ chunk_quads }}u;
        var values = vec4<f32>();
        if (quad < {{ quads }}u) {
          if (line < {{ rows }}u) {
            let token = min(first + line, sizes.tokens - 1u);
            values = q[(group.z * sizes.tokens + token) * sizes.channels + head + quad];
          } else {
            let key = min(tile + line - {{ rows }}u, sizes.keys - 1u);
            values = k[(shared_entry + key) * sizes.channels + head + quad];
          }
        }
        hold(line * {{ c_stride }}u + e % {{ chunk_quads }}u * 4u, values);
      }
      workgroupBarrier();
//% for e in range(chunk // size)
      let k{{ e }} = coopLoad<{{ matrix }}<f16, B>>(
        &hs[here + {{ k_start + e * size }}u + part * {{ size * c_stride }}u], {{ c_stride }}u);
//% for i in range(each)
      let q{{ i }}_{{ e }} = coopLoadT<{{ matrix }}<f16, A>>(
        &hs[here + {{ i * size * c_stride + e * size }}u], {{ c_stride }}u);
      s{{ i }} = coopMultiplyAdd(q{{ i }}_{{ e }}, k{{ e }}, s{{ i }});
//% endfor
//% endfor
    }
    if (lane == 0u) { exceeded = 0u; }
    {{ held }}
//% for i in range(each)
      let to{{ i }} = &ss[{{ i * size * s_stride }}u + part * {{ size }}u];
      let sum{{ i }} = s{{ i }};
      coopStoreT(sum{{ i }}, to{{ i }}, {{ s_stride }}u);
//% endfor
    }
    workgroupBarrier();
//% for p in range(passes)
    var fresh{{ p }} = 0.0;
//% endfor
    var greatest = nothing;
{{ am.exponentials(passes, keys, s_stride, p_start, most, seen) }}
    if (greatest > {{ most }}.0) { exceeded = 1u; }
    if (workgroupUniformLoad(&exceeded) != 0u) {
{{ am.raise(rows, keys, invocations, passes, s_stride, most, headroom, seen) }}
{{ am.exponentials(passes, keys, s_stride, p_start, most, seen) }}
//% for j in range(columns)
{{ put(j) }}
      for (var e = lane; e < {{ rows * keys }}u; e += {{ invocations }}u) {
        ss[e / {{ keys }}u * {{ s_stride }}u + e % {{ keys }}u] *= fades[e / {{ keys }}u];
      }
      workgroupBarrier();
//% for i in range(each)
      c{{ i }}_{{ j }} = coopLoadT<{{ matrix }}<f32, C>>(
        &ss[{{ i * size * s_stride }}u + part * {{ size }}u], {{ s_stride }}u);
//% endfor
//% endfor
    }
//% for p in range(passes)
    total{{ p }} += fresh{{ p }};
//% endfor
    for (var key = 0u; key < {{ keys }}u; key += {{ step }}u) {
      workgroupBarrier();
      for (var e = lane; e < {{ step * padded // 4 }}u; e += {{ invocations }}u) {
        let line = e / {{ padded // 4 }}u;
        let quad = e % {{ padded // 4 }}u;
        var values = vec4<f32>();
        if (quad < {{ quads }}u) {
          let at = min(tile + key + line, sizes.keys - 1u);
          values = v[(shared_entry + at) * sizes.channels + head + quad];
        }
        hold(line * {{ v_stride }}u + quad * 4u, values);
      }
      workgroupBarrier();
//% for u in range(step // size)
//% for i in range(each)
      let p{{ i }}_{{ u }} = coopLoadT<{{ matrix }}<f16, A>>(
        &hs[here + {{ p_start + i * size * s_stride + u * size }}u + key], {{ s_stride }}u);
//% endfor
//% for j in range(columns)
      let v{{ j }}_{{ u }} = coopLoadT<{{ matrix }}<f16, B>>(
        &hs[here + {{ u * size * v_stride + j * size }}u + part * {{ own }}u], {{ v_stride }}u);
//% for i in range(each)
      c{{ i }}_{{ j }} = coopMultiplyAdd(p{{ i }}_{{ u }}, v{{ j }}_{{ u }}, c{{ i }}_{{ j }});
//% endfor
//% endfor
//% endfor
    }
  }
  workgroupBarrier();
//% for p in range(passes)
  ss[row{{ p }} * 8u + eighth] = total{{ p }};
//% endfor
  workgroupBarrier();
  for (var row = lane; row < {{ rows }}u; row += {{ invocations }}u) {
    references[row] = ss[row * 8u]{% for e in range(1, 8) %} + ss[row * 8u + {{ e }}u]{% endfor %};
  }
//% for j in range(columns)
{{ put(j) }}
  for (var e = lane; e < {{ rows * keys // 4 }}u; e += {{ invocations }}u) {
    let row = e / {{ keys // 4 }}u;
    let four = e % {{ keys // 4 }}u;
    let quad = four / {{ size // 4 }}u * {{ own // 4 }}u + {{ j * size // 4 }}u
      + four % {{ size // 4 }}u;
    if (first + row < sizes.tokens && quad < {{ quads }}u) {
      let at = row * {{ s_stride }}u + four * 4u;
      y[(group.z * sizes.tokens + first + row) * sizes.channels + head + quad] =
        vec4<f32>(ss[at], ss[at + 1u], ss[at + 2u], ss[at + 3u]) / references[row];
    }
  }
//% endfor
}
