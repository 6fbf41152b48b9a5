// y = softmax(scale q k^T) v for every head: the contract of attention.wgsl, by cooperative
// matrices of {{ size }} x {{ size }}: q, k, v and the exponentials are rounded to f16, sums are
// f32. What f16 cannot hold becomes its greatest number, 65504, not infinity.
// A workgroup makes {{ parts * each * size }} tokens of one head, {{ parts }} subgroups of at most
// {{ lanes }} lanes {{ each * size }} each, from {{ keys }} keys at a time. Heads have {{ d }}
// elements, a multiple of 4; in workgroup memory and registers {{ padded }}, the rest zeros.
// `scale` includes log2(e). `channels` counts vectors.
//% if masked
// Tokens and keys are the same; a token sees the keys with which it shares a bit of mask [tokens],
// itself among them.
//% elif regional
// Or that of regional_attention.wgsl, prompt after prompt, as plain attention makes each.
//% endif
//% if varying
// Of subgroups that are smaller than that there are more than parts: those left over repeat what
// others do, and store nothing.
//% endif
//
// Exponents are relative to a reference of each token that is not its greatest score but seldom
// changes: only where a score exceeds it by more than {{ most }} is it raised to {{ headroom }}
// below the greatest score met, and the token's sums scaled. So the common way needs no greatest
// score of a row, and no sums leave their registers; exponentials stay in f16's range. What comes
// of a token hangs on no other one.
// Matrices have no elements in WGSL: scores go through workgroup memory to the lanes that take
// exponentials, which go back as matrices.
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
//% set k_stride = keys + 8
//% set v_start = padded * k_stride
//% set p_start = v_start + keys * stride
//% set slots = invocations // 8
//% set passes = rows // slots
//% set loads = (keys * quads + invocations - 1) // invocations
//% set guard = keys * quads % invocations != 0
//% set held = "if (subgroup < " ~ parts ~ "u) {" if varying else "{"
//% set at_once = keys // size
//% set seen = "s"
//% if causal
//% set seen = "select(nothing, s, KEY < sizes.keys && KEY <= first + ROW)"
//% elif masked
//% set seen = "select(nothing, s, KEY < sizes.keys && (SEEN & SIGHT) != 0u)"
//% elif regional
//% set seen = "select(nothing, s, KEY < end)"
//% elif ragged
//% set seen = "select(nothing, s, KEY < sizes.keys)"
//% endif
//% set last_key = "end" if regional else "sizes.keys"
//% if regional
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, prompts: u32, scale: f32 }
//% else
struct Sizes { tokens: u32, keys: u32, channels: u32, share: u32, scale: f32 }
//% endif
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> v: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
//% if regional
@group(0) @binding(5) var<storage, read> order: array<u32>;
@group(0) @binding(6) var<storage, read> weights: array<f32>;
@group(0) @binding(7) var<storage, read> spans: array<u32>;
//% elif masked
@group(0) @binding(5) var<storage, read> mask: array<u32>;
//% endif
// First q [token][{{ stride }}], which goes to registers; then k transposed
// [element][{{ k_stride }}], v [key][{{ stride }}], and exponentials [token][{{ s_stride }}]. Rows
// end in 16 bytes of nothing, so that those of a matrix lie in different banks.
var<workgroup> hs: array<f16, {{ [rows * stride, p_start + rows * s_stride] | max }}>;
// Scores [token][{{ s_stride }}]; 8 lanes take a row, with 4 rows in different banks.
var<workgroup> ss: array<f32, {{ rows * s_stride }}>;
var<workgroup> references: array<f32, {{ rows }}>; // at last totals
var<workgroup> fades: array<f32, {{ rows }}>;
var<workgroup> exceeded: u32; // whether a score of these keys exceeds its reference by too much
//% if regional
var<workgroup> shares: array<f32, {{ rows }}>; // of the prompt in each token
var<workgroup> written: array<u32, {{ rows }}>; // whether a prompt before had a share
//% endif
const nothing = -1e30;

fn hold(at: u32, values: vec4<f32>, step: u32) {
  let h = vec4<f16>(clamp(values, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
//% for e in range(4)
  hs[at + {{ e }}u * step] = h.{{ "xyzw"[e] }};
//% endfor
}

// Quad `quad` of the elements of a key and its value, the `key`-th of those at hand.
fn hold_pair(key: u32, quad: u32, of_key: vec4<f32>, of_value: vec4<f32>) {
  hold(quad * {{ 4 * k_stride }}u + key, of_key, {{ k_stride }}u);
  hold({{ v_start }}u + key * {{ stride }}u + quad * 4u, of_value, 1u);
}

//# Zeros behind `count` rows of elements.
//% macro fill(start, count)
  for (var e = lane; e < {{ count * (padded - d) }}u; e += {{ invocations }}u) {
    hs[{{ start + d }}u + e / {{ padded - d }}u * {{ stride }}u + e % {{ padded - d }}u] = f16(0.0);
  }
//% endmacro
//# The token of a row of the workgroup.
//% macro token_of(row)
//% if regional
min(order[min(first + {{ row }}, sizes.tokens - 1u)], sizes.tokens - 1u)
//% else
min(first + {{ row }}, sizes.tokens - 1u)
//% endif
//% endmacro
//% macro load(tile)
//% for i in range(loads)
  {
    let at = (
      shared_entry
      + min({{ tile }} + (lane + {{ i * invocations }}u) / {{ quads }}u, {{ last_key }} - 1u))
      * sizes.channels + head + (lane + {{ i * invocations }}u) % {{ quads }}u;
    next_k{{ i }} = k[at];
    next_v{{ i }} = v[at];
  }
//% endfor
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
//% if padded != d
{{ fill(0, rows) }}
//% endif
  for (var e = lane; e < {{ rows * quads }}u; e += {{ invocations }}u) {
    let token = {{ token_of("e / " ~ quads ~ "u") }};
    hold(e / {{ quads }}u * {{ stride }}u + e % {{ quads }}u * 4u,
      q[(group.z * sizes.tokens + token) * sizes.channels + head + e % {{ quads }}u], 1u);
  }
//% if regional
  for (var row = lane; row < {{ rows }}u; row += {{ invocations }}u) { written[row] = 0u; }
//% else
  for (var row = lane; row < {{ rows }}u; row += {{ invocations }}u) { references[row] = nothing; }
//% endif
  // Sums begin as matrices of zeros from memory: how a matrix is made zero otherwise, languages do
  // not agree on.
  for (var e = lane; e < {{ size * size }}u; e += {{ invocations }}u) { ss[e] = 0.0; }
  workgroupBarrier();
  let part_row = subgroup{{ " % " ~ parts ~ "u" if varying }} * {{ each * size }}u;
{{ am.take("q", matrix, size, each, columns, stride) }}
  let zero = coopLoadT<{{ matrix }}<f32, C>>(&ss[0], {{ size }}u);
//% for i in range(each)
//% for j in range(columns)
  var c{{ i }}_{{ j }} = zero;
//% endfor
//% endfor
//% if padded != d
  workgroupBarrier();
{{ fill(v_start, keys) }}
  for (var e = lane; e < {{ (padded - d) * keys }}u; e += {{ invocations }}u) {
    hs[({{ d }}u + e / {{ keys }}u) * {{ k_stride }}u + e % {{ keys }}u] = f16(0.0);
  }
//% endif
  // A lane takes the exponentials of every eighth key, for {{ passes }} rows.
  let slot = lane / 8u;
  let eighth = lane % 8u;
//% for p in range(passes)
  let row{{ p }} = slot + {{ p * slots }}u;
  var reference{{ p }} = nothing;
  var total{{ p }} = 0.0;
//% if masked
  let seen{{ p }} = mask[min(first + row{{ p }}, sizes.tokens - 1u)];
//% endif
//% endfor
//% if ahead
//% for i in range(loads)
  var next_k{{ i }} = vec4<f32>();
  var next_v{{ i }} = vec4<f32>();
//% endfor
//% endif
//% if regional
  let groups = (sizes.tokens + {{ group - 1 }}u) / {{ group }}u;
  for (var prompt = 0u; prompt < sizes.prompts; prompt++) {
    // Its keys, if one of the groups of this workgroup's tokens reads it.
    var begin = 0u;
    var end = 0u;
    for (var at = first; at < first + {{ rows }}u; at += {{ group }}u) {
      let span = (min(at / {{ group }}u, groups - 1u) * sizes.prompts + prompt) * 2u;
      begin = spans[span];
      end = max(end, min(spans[span + 1u], sizes.keys));
    }
    if (begin >= end) { continue; }
    workgroupBarrier();
    for (var row = lane; row < {{ rows }}u; row += {{ invocations }}u) {
      references[row] = nothing;
      shares[row] = 0.0;
      if (first + row < sizes.tokens) {
        shares[row] = weights[{{ token_of("row") }} * sizes.prompts + prompt];
      }
    }
//% for p in range(passes)
    reference{{ p }} = nothing;
    total{{ p }} = 0.0;
//% endfor
//% for i in range(each)
//% for j in range(columns)
    c{{ i }}_{{ j }} = zero;
//% endfor
//% endfor
//% else
  {
    const begin = 0u;
//% if causal
    let end = min(sizes.keys, first + {{ rows }}u); // later ones are seen by no token of this group
//% else
    let end = sizes.keys;
//% endif
//% endif
//% if ahead
{{ load("begin") }}
//% endif
  for (var tile = begin; tile < end; tile += {{ keys }}u) {
    workgroupBarrier();
    // Always 0, but no compiler knows: naga writes loads of matrices as private ones, which a
    // driver may take out of the loop, past the barriers, where their place stays the same.
    // (Without, what came out on NVIDIA may have been the queries that lay there before.)
    let here = (tile >> 31u) * 8u;
    if (lane == 0u) { exceeded = 0u; }
//% if ahead
//% for i in range(loads)
//% set place = "(lane + " ~ i * invocations ~ "u)"
//% set at = place ~ " / " ~ quads ~ "u, " ~ place ~ " % " ~ quads ~ "u"
//% set guarded = guard and i == loads - 1
    {{ "if (lane + " ~ i * invocations ~ "u < " ~ keys * quads ~ "u)" if guarded }} {
      hold_pair({{ at }}, next_k{{ i }}, next_v{{ i }});
    }
//% endfor
//% else
    for (var e = lane; e < {{ keys * quads }}u; e += {{ invocations }}u) {
      let source =
        (shared_entry + min(tile + e / {{ quads }}u, {{ last_key }} - 1u)) * sizes.channels
        + head + e % {{ quads }}u;
      hold_pair(e / {{ quads }}u, e % {{ quads }}u, k[source], v[source]);
    }
//% endif
    workgroupBarrier();
//% if ahead
    let next = tile + {{ keys }}u;
    if (next < end) {
{{ load("next") }}
    }
//% endif
    for (var j = 0u; j < {{ keys }}u; j += {{ size }}u) {
//% for i in range(each)
      var s{{ i }} = zero;
//% endfor
//% for e in range(columns)
      let k{{ e }} = coopLoadT<{{ matrix }}<f16, B>>(
        &hs[here + {{ e * size * k_stride }}u + j], {{ k_stride }}u);
//% for i in range(each)
      s{{ i }} = coopMultiplyAdd(q{{ i }}_{{ e }}, k{{ e }}, s{{ i }});
//% endfor
//% endfor
      {{ held }}
//% for i in range(each)
        let to{{ i }} = &ss[(part_row + {{ i * size }}u) * {{ s_stride }}u + j];
        let sum{{ i }} = s{{ i }};
        coopStoreT(sum{{ i }}, to{{ i }}, {{ s_stride }}u);
//% endfor
      }
    }
    workgroupBarrier();
//% for p in range(passes)
    var fresh{{ p }} = 0.0;
//% endfor
    var greatest = nothing;
//% if masked
//% for e in range(keys // 8)
    let mask{{ e }} = mask[min(tile + eighth + {{ 8 * e }}u, sizes.keys - 1u)];
//% endfor
//% endif
{{ am.exponentials(passes, keys, s_stride, p_start, most, seen) }}
    if (greatest > {{ most }}.0) { exceeded = 1u; }
    if (workgroupUniformLoad(&exceeded) != 0u) {
{{ am.raise(rows, keys, invocations, passes, s_stride, most, headroom, seen) }}
{{ am.exponentials(passes, keys, s_stride, p_start, most, seen) }}
//% for j in range(0, columns, at_once)
//% set count = [at_once, columns - j] | min
{{ am.put("c", j, count, size, each, s_stride, held) }}
      for (var e = lane; e < {{ rows * count * size }}u; e += {{ invocations }}u) {
        ss[e / {{ count * size }}u * {{ s_stride }}u + e % {{ count * size }}u] *=
          fades[e / {{ count * size }}u];
      }
      workgroupBarrier();
//% for i in range(each)
//% for u in range(count)
      c{{ i }}_{{ j + u }} = coopLoadT<{{ matrix }}<f32, C>>(
        &ss[(part_row + {{ i * size }}u) * {{ s_stride }}u + {{ u * size }}u], {{ s_stride }}u);
//% endfor
//% endfor
//% endfor
    }
//% for p in range(passes)
    total{{ p }} += fresh{{ p }};
//% endfor
    for (var j = 0u; j < {{ keys }}u; j += {{ size }}u) {
//% for i in range(each)
      let p{{ i }} = coopLoadT<{{ matrix }}<f16, A>>(
        &hs[here + {{ p_start }}u + (part_row + {{ i * size }}u) * {{ s_stride }}u + j],
        {{ s_stride }}u);
//% endfor
//% for e in range(columns)
      let v{{ e }} = coopLoadT<{{ matrix }}<f16, B>>(
        &hs[here + {{ v_start }}u + j * {{ stride }}u + {{ e * size }}u], {{ stride }}u);
//% for i in range(each)
      c{{ i }}_{{ e }} = coopMultiplyAdd(p{{ i }}, v{{ e }}, c{{ i }}_{{ e }});
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
//% for j in range(0, columns, at_once)
//% set count = [at_once, columns - j] | min
{{ am.put("c", j, count, size, each, s_stride, held) }}
  for (var e = lane; e < {{ rows * count * size // 4 }}u; e += {{ invocations }}u) {
    let row = e / {{ count * size // 4 }}u;
    let quad = e % {{ count * size // 4 }}u;
    if (first + row < sizes.tokens && quad < {{ quads - j * size // 4 }}u
      {{- " && shares[row] != 0.0" if regional }}) {
      let at = row * {{ s_stride }}u + quad * 4u;
      let to = (group.z * sizes.tokens + {{ token_of("row") }}) * sizes.channels + head
        + {{ j * size // 4 }}u + quad;
      var values = vec4<f32>(ss[at], ss[at + 1u], ss[at + 2u], ss[at + 3u]) / references[row];
//% if regional
      // A share of 1 changes nothing: one prompt alone gives the very numbers of plain attention.
      values *= shares[row];
      if (written[row] != 0u) { values += y[to]; }
//% endif
      y[to] = values;
    }
  }
//% endfor
//% if regional
  workgroupBarrier();
  for (var row = lane; row < {{ rows }}u; row += {{ invocations }}u) {
    if (shares[row] != 0.0) { written[row] = 1u; }
  }
//% endif
  }
//% if regional
  workgroupBarrier();
  for (var e = lane; e < {{ rows * quads }}u; e += {{ invocations }}u) {
    let row = e / {{ quads }}u;
    if (first + row < sizes.tokens && written[row] == 0u) {
      let to = (group.z * sizes.tokens + {{ token_of("row") }}) * sizes.channels + head;
      y[to + e % {{ quads }}u] = vec4<f32>();
    }
  }
//% endif
}
