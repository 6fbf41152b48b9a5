// rows[entry, token, head] = (ln2 (peak + log2(total)), y . dy): of a block of `count` tokens from `first` on, in scratch the peaks
// [entry, head, token of block] and the sums [entry, head, token of block, chunks] of their exponentials. An invocation makes one token
// of one head. y, dy [batch, tokens, channels]; rows [batch, tokens, heads, 2].
struct Sizes { tokens: u32, channels: u32, heads: u32, first: u32, count: u32, peaks: u32, sums: u32, chunks: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> scratch: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> rows: array<f32>;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let token = group.x * {{ lanes }}u + lane;
  if (token < sizes.count) {
    let slot = group.z * sizes.count + token;
    var total = 0.0;
    for (var i = 0u; i < sizes.chunks; i++) {
      total += scratch[sizes.sums + slot * sizes.chunks + i];
    }
    let d = sizes.channels / sizes.heads;
    let row = group.z / sizes.heads * sizes.tokens + sizes.first + token;
    let head = group.z % sizes.heads;
    var delta = 0.0;
    for (var c = head * d; c < (head + 1u) * d; c++) {
      delta = fma(y[row * sizes.channels + c], dy[row * sizes.channels + c], delta);
    }
    let to = (row * sizes.heads + head) * 2u;
    rows[to] = 0.6931471805599453 * (scratch[sizes.peaks + slot] + log2(total));
    rows[to + 1u] = delta;
  }
}
