//# What attention's gradients by cooperative matrices share.
//#   functions()   `hold`, which rounds a vector to f16 into workgroup memory `hs`
//#   stage(..)     statements: puts the head's elements of `count` lines of `tensor` there, from
//#                 `start` on, rows of `stride`, with zeros from element d to `padded`; `from_line`
//#                 is the line of the tensor that `line` is
//% macro functions()
fn hold(at: u32, values: vec4<f32>) {
  let h = vec4<f16>(clamp(values, vec4<f32>(-65504.0), vec4<f32>(65504.0)));
//% for e in range(4)
  hs[at + {{ e }}u] = h.{{ "xyzw"[e] }};
//% endfor
}
//% endmacro
//% macro stage(tensor, start, count, d, padded, stride, invocations, from_line)
  for (var e = lane; e < {{ count * padded // 4 }}u; e += {{ invocations }}u) {
    let line = e / {{ padded // 4 }}u;
    let quad = e % {{ padded // 4 }}u;
//% if padded == d
    let values = {{ tensor }}[({{ from_line }}) * sizes.channels + head + quad];
//% else
    var values = vec4<f32>();
    if (quad < {{ d // 4 }}u) {
      values = {{ tensor }}[({{ from_line }}) * sizes.channels + head + quad];
    }
//% endif
    hold({{ start }}u + line * {{ stride }}u + quad * 4u, values);
  }
//% endmacro
