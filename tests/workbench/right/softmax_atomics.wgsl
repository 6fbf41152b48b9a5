// The greatest of a row by atomics: read, written and exchanged beside each other.
//% kind softmax
//% dispatch [rows]
struct Sizes { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
// Bits of floats in an order of whole numbers.
var<workgroup> greatest: atomic<u32>;

fn ordered(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn restored(order: u32) -> f32 {
  return bitcast<f32>(select(~order, order & 0x7fffffffu, (order >> 31u) == 1u));
}

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.x * sizes.columns;
  if (lane == 0u) { atomicStore(&greatest, 0u); }
  workgroupBarrier();
  for (var i = lane; i < sizes.columns; i += 16u) {
    let order = ordered(x[row + i]);
    if (order > atomicLoad(&greatest)) { atomicMax(&greatest, order); }
  }
  workgroupBarrier();
  let peak = restored(atomicLoad(&greatest));
  var total = 0.0;
  for (var i = 0u; i < sizes.columns; i++) { total += exp(x[row + i] - peak); }
  for (var i = lane; i < sizes.columns; i += 16u) { y[row + i] = exp(x[row + i] - peak) / total; }
}
