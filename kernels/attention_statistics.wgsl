// y[to + row] = {{ "the greatest of" if peaks else "weight / the sum of" if weighted else "1 / the sum of" }} y[begin + row count ..][..count], for `rows` rows. An invocation makes one row.
//% if weighted
// Rows are `block` tokens for each head of each batch entry; token t is the token readers[first_reader + t], whose weight is that of number
// `prompt` in weights [tokens, prompts].
//% endif
struct Sizes {
  rows: u32,
  begin: u32,
  count: u32,
  to: u32,
//% if weighted
  block: u32,
  first_reader: u32,
  prompts: u32,
  prompt: u32,
//% endif
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
//% if weighted
@group(0) @binding(2) var<storage, read> readers: array<u32>;
@group(0) @binding(3) var<storage, read> weights: array<f32>;
//% endif

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = (group.x + group.y * 32768u) * {{ lanes }}u + lane;
  if (row < sizes.rows) {
    var result = {{ "-1e30" if peaks else "0.0" }};
    for (var i = 0u; i < sizes.count; i++) {
      let value = y[sizes.begin + row * sizes.count + i];
      result = {{ "max(result, value)" if peaks else "result + value" }};
    }
//% if weighted
    let weight = weights[readers[sizes.first_reader + row % sizes.block] * sizes.prompts + sizes.prompt];
//% endif
    y[sizes.to + row] = {{ "result" if peaks else "weight / result" if weighted else "1.0 / result" }};
  }
}
