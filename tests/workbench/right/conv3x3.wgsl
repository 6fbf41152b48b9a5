// A pixel and a channel to an invocation.
//% kind conv3x3
//% dispatch [ceil(outputs / 8), ceil(height * width / 8), batch]
struct Sizes { height: u32, width: u32, inputs: u32, outputs: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= sizes.outputs || id.y >= sizes.height * sizes.width) { return; }
  let row = id.y / sizes.width;
  let column = id.y % sizes.width;
  var sum = 0.0;
  for (var ky = 0u; ky < 3u; ky++) {
    if (row + ky < 1u || row + ky > sizes.height) { continue; }
    for (var kx = 0u; kx < 3u; kx++) {
      if (column + kx < 1u || column + kx > sizes.width) { continue; }
      let pixel = (id.z * sizes.height + row + ky - 1u) * sizes.width + column + kx - 1u;
      let weights = (id.x * 9u + ky * 3u + kx) * sizes.inputs;
      for (var i = 0u; i < sizes.inputs; i++) { sum += x[pixel * sizes.inputs + i] * w[weights + i]; }
    }
  }
  y[(id.z * sizes.height * sizes.width + id.y) * sizes.outputs + id.x] = sum;
}
