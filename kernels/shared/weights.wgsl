//# Weights in panels of 64 outputs, as they are held: f32, f16 in pairs, or in blocks of 32 inputs.
//# A block of a panel is 544 u32, or 288: its outputs' factors, f16 in pairs, then the numbers.
//# Of q8_0 they are bytes [input][output]; of q4_0 [input % 16][output], the inputs from 16 on in
//# the high bits, and 8 stands for 0. `blocks` is false or one of these two.
//#   functions(..)  block_factors(block, quad) and block_numbers(block, quad, input), whose product
//#                  are the weights of the outputs from 4 * quad on: the block begins at u32
//#                  `block`, of whose inputs `input` is one
//#                  factor_words, number_word, and what they come to, factors_of and numbers_of:
//#                  the same in two steps
//% macro functions(blocks)
//% if blocks
fn factor_words(block: u32, quad: u32) -> vec2<u32> {
  let at = block + quad * 2u;
  return vec2<u32>(w[at], w[at + 1u]);
}
fn factors_of(words: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
//% if blocks == "q8_0"
fn number_word(block: u32, quad: u32, input: u32) -> u32 {
  return w[block + 32u + input * 16u + quad];
}
fn numbers_of(word: u32) -> vec4<f32> {
  // The sign of a byte comes down from the top.
  let bytes = vec4<i32>(bitcast<i32>(word)) << vec4<u32>(24u, 16u, 8u, 0u);
  return vec4<f32>(bytes >> vec4<u32>(24u));
}
//% else
fn number_word(block: u32, quad: u32, input: u32) -> u32 {
  return w[block + 32u + input % 16u * 16u + quad] >> (input / 16u * 4u);
}
fn numbers_of(word: u32) -> vec4<f32> {
  let bytes = vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u);
  return vec4<f32>(bytes & vec4<u32>(15u)) - vec4<f32>(8.0);
}
//% endif
fn block_factors(block: u32, quad: u32) -> vec4<f32> {
  return factors_of(factor_words(block, quad));
}
fn block_numbers(block: u32, quad: u32, input: u32) -> vec4<f32> {
  return numbers_of(number_word(block, quad, input));
}
//% endif
//% endmacro
