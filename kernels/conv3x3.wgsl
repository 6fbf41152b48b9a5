// 3x3 convolution of stride 1 over a padded feature map: y[b, oy, ox, n] = epilogue(sum x[b, oy + ky, ox + kx, c] w[n, ky, kx, c]).
// x [batch, to_height + 2, to_width + 2, into]; w in panels [out / 64][9][into][64], f16 pairs or f32; y [batch, to_height, to_width,
// channels] is overwritten. Register tile: {{ strip }} neighbouring pixels by 64 outputs; the {{ strip + 2 }} pixels of a line are loaded
// once for three taps. No barrier. `into` and outputs are multiples of 4; `channels` counts vectors.
//% import "shared/epilogue" as ep
//% import "shared/lora" as lr
//% set VI = "vec4<f32>" if unroll == 4 else "f32"
struct Sizes {
  into: u32,
  channels: u32,
  to_height: u32,
  to_width: u32,
{{ lr.members(lora) }}
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<{{ VI }}>;
@group(0) @binding(2) var<storage, read> w: array<{{ "vec2<u32>" if half else "vec4<f32>" }}>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
{{ lr.bindings(lora, 4) }}
{{ ep.bindings(epilogue, 6 if lora else 4, "vec4<f32>") }}
{{ ep.functions(epilogue, "vec4<f32>") }}

@compute @workgroup_size(16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let strips = (sizes.to_width + {{ strip - 1 }}u) / {{ strip }}u;
  let x0 = group.y % strips * {{ strip }}u;
  let oy = group.y / strips;
  let into = sizes.into / {{ unroll }}u;
  let width = sizes.to_width + 2u;
//% for i in range(strip + 2)
  let at{{ i }} = min(x0 + {{ i }}u, width - 1u) * into;
//% endfor
//% for i in range(strip)
  var c{{ i }} = vec4<f32>();
//% endfor
  for (var ky = 0u; ky < 3u; ky++) {
    let line = (group.z * (sizes.to_height + 2u) + oy + ky) * width * into;
    let weights = (group.x * 9u + ky * 3u) * sizes.into;
    for (var k = 0u; k < into; k++) {
//% for i in range(strip + 2)
      let a{{ i }} = x[line + at{{ i }} + k];
//% endfor
//% for kx in range(3)
//% for kk in range(unroll)
//% set b = "b" ~ kx ~ "_" ~ kk
      let {{ b }}w = w[(weights + {{ kx }}u * sizes.into + k * {{ unroll }}u + {{ kk }}u) * 16u + lane];
//% if half
      let {{ b }} = vec4<f32>(unpack2x16float({{ b }}w.x), unpack2x16float({{ b }}w.y));
//% else
      let {{ b }} = {{ b }}w;
//% endif
//% for i in range(strip)
      c{{ i }} = fma(vec4<f32>(a{{ i + kx }}{{ "." ~ "xyzw"[kk] if unroll == 4 else "" }}), {{ b }}, c{{ i }});
//% endfor
//% endfor
//% endfor
    }
  }
  let channel = group.x * 16u + lane;
//% if lora
  let quad = min(channel, sizes.channels - 1u);
//% for i in range(strip)
  let place{{ i }} = (group.z * sizes.to_height + oy) * sizes.to_width + min(x0 + {{ i }}u, sizes.to_width - 1u);
//% endfor
{{ lr.accumulate(lora, 4, strip, "quad", "c", "place") }}
//% endif
  if (channel < sizes.channels) {
    let row0 = (group.z * sizes.to_height + oy) * sizes.to_width + x0;
//% for i in range(strip)
    if (x0 + {{ i }}u < sizes.to_width) {
      let row = row0 + {{ i }}u;
      let index = row * sizes.channels + channel;
      var v = c{{ i }};
{{ ep.apply(epilogue, "v", "row", "channel", "index") }}
      y[index] = v;
    }
//% endfor
  }
}
