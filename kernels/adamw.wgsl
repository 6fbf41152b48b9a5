// One AdamW update (decoupled weight decay, bias-corrected moments) of `count` numbers.
// state [3, count]: the numbers, their first and second moments; gradient [count]; rates [5]: 1 -
// learning rate * weight decay, learning rate / (1 - beta1^t), sqrt(1 - beta2^t), a factor of the
// gradient, and whether anything moves; loss [1].
// y [3, count] is overwritten: the new state, or the old one where rates[4] is 0 or the loss is not
// finite.
struct Sizes { count: u32, beta1: f32, beta2: f32, epsilon: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> state: array<f32>;
@group(0) @binding(2) var<storage, read> gradient: array<f32>;
@group(0) @binding(3) var<storage, read> rates: array<f32>;
@group(0) @binding(4) var<storage, read> loss: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.count) { return; }
  var p = state[i];
  var m = state[i + sizes.count];
  var v = state[i + 2u * sizes.count];
  // By its bits: compilers may assume that there are no infinities.
  let finite = (bitcast<u32>(loss[0]) & 0x7f800000u) != 0x7f800000u;
  if (rates[4] != 0.0 && finite) {
    let g = gradient[i] * rates[3];
    m = m + (g - m) * (1.0 - sizes.beta1);
    v = v * sizes.beta2 + g * g * (1.0 - sizes.beta2);
    p = p * rates[0] - rates[1] * (m / (sqrt(v) / rates[2] + sizes.epsilon));
  }
  y[i] = p;
  y[i + sizes.count] = m;
  y[i + 2u * sizes.count] = v;
}
