// y[start + (entry heads + head) d + c, token] = x[entry / share, token, head d + c], rows of `columns` numbers, zeros after the tokens.
// x [batch, tokens, channels] from `first` on, batch entries `entry` elements apart. An invocation makes one token of one head.
struct Sizes { tokens: u32, channels: u32, heads: u32, share: u32, first: u32, entry: u32, start: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let token = group.x * {{ lanes }}u + lane;
  let d = sizes.channels / sizes.heads;
  let begin = sizes.first + group.z / sizes.heads / sizes.share * sizes.entry + min(token, sizes.tokens - 1u) * sizes.channels
    + group.z % sizes.heads * d;
  let to = sizes.start + group.z * d * sizes.columns + token;
  if (token < sizes.columns) {
    for (var c = 0u; c < d; c++) {
      y[to + c * sizes.columns] = select(0.0, x[begin + c], token < sizes.tokens);
    }
  }
}
