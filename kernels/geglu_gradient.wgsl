// y[r, c] = dy[r, c] * gelu(x[r, channels + c]), y[r, channels + c] = dy[r, c] * x[r, c] *
// gelu'(x[r, channels + c]).
// x, y [rows, 2 channels], y is overwritten; dy [rows, channels].
//% import "shared/epilogue" as ep
//% set V = "vec4<f32>" if vector == 4 else "f32"
struct Sizes { rows: u32, channels: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ V }}>;
@group(0) @binding(2) var<storage, read> dy: array<{{ V }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ V }}>;
{{ ep.gelu(V) }}
{{ ep.derivative("gelu", V) }}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.x + group.y * 32768u) * 64u + lane;
  if (i >= sizes.rows * sizes.channels) { return; }
  let at = i / sizes.channels * sizes.channels * 2u + i % sizes.channels;
  let gate = x[at + sizes.channels];
  let d = dy[i];
  y[at] = d * gelu(gate);
  y[at + sizes.channels] = d * x[at] * gelu_derivative(gate);
}
