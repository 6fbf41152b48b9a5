// y[s] = sum_j matrix[s, j] z[j], where z is the {{ slots }} slots of `state`, then a, then b;
// every slot has `elements`.
// y [{{ slots }}, elements] is overwritten.
struct Sizes { elements: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> state: array<f32>;
@group(0) @binding(2) var<storage, read> a: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read> matrix: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.elements) { return; }
//% for j in range(slots)
  let z{{ j }} = state[{{ j }}u * sizes.elements + i];
//% endfor
  let z{{ slots }} = a[i];
  let z{{ slots + 1 }} = b[i];
//% for s in range(slots)
  {
    var v = 0.0;
//% for j in range(slots + 2)
    v = fma(matrix[{{ s * (slots + 2) + j }}], z{{ j }}, v);
//% endfor
    y[{{ s }}u * sizes.elements + i] = v;
  }
//% endfor
}
