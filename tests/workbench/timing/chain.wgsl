// 1000 multiply-adds that end at 0.5, wherever they began.
//% dispatch [ceil(count / 64)]
struct Sizes { count: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= sizes.count) { return; }
  var v = x[id.x];
  for (var i = 0u; i < 1000u; i++) { v = fma(v, 0.5, 0.25); }
  y[id.x] = v;
}
