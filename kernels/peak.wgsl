// The device's peak: {{ chains }} independent chains of vector fma, 16 `rounds` long, kept from
// being optimised away by the store.
// y [workgroups * 64] is overwritten.
struct Sizes { rounds: u32, factor: f32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
//% for i in range(chains)
  var c{{ i }} = vec4<f32>(f32(lane) + {{ i }}.0);
//% endfor
  let factor = vec4<f32>(sizes.factor);
  for (var r = 0u; r < sizes.rounds; r++) {
//% for step in range(16)
//% for i in range(chains)
    c{{ i }} = fma(c{{ i }}, factor, factor);
//% endfor
//% endfor
  }
  var v = vec4<f32>();
//% for i in range(chains)
  v += c{{ i }};
//% endfor
  y[group.x * 64u + lane] = v.x + v.y + v.z + v.w;
}
