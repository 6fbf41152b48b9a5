// Four numbers an invocation; gelu by the error function (Abramowitz and Stegun 7.1.26).
//% kind geglu
//% dispatch [ceil(rows * columns / 256)]
//% needs columns % 4 == 0
//% tolerance 1e-6
struct Sizes { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

fn erf(x: vec4<f32>) -> vec4<f32> {
  let t = 1.0 / (1.0 + 0.3275911 * abs(x));
  let p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027
    + t * 1.061405429))));
  return sign(x) * (1.0 - p * exp(-x * x));
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let columns = sizes.columns / 4u;
  if (id.x >= sizes.rows * columns) { return; }
  let at = id.x / columns * columns * 2u + id.x % columns;
  let gate = x[at + columns];
  y[id.x] = x[at] * 0.5 * gate * (1.0 + erf(gate * 0.70710678));
}
