//# What attention by cooperative matrices, forward and backward, has in common.
//#   functions()   `hold`, which rounds a vector to f16 into workgroup memory `hs`
//#   stage(..)     statements: puts the head's elements of `count` lines of `tensor` there, from
//#                 `start` on, rows of `stride`, with zeros from element d to `padded`; `from_line`
//#                 is the line of the tensor that `line` is
//#   take(..)      {{name}}0_0 ..: the subgroup's rows of what is staged at the start of `hs`, as
//#                 matrices of factors
//#   scores(..)    statements: sums of {{with}}0_0 .. times the lines from j on that are staged
//#                 from `start` on, to workgroup memory `ss`, from `to` on
//#   put(..)       statements, barriers before and after: `count` columns of sums {{name}}0_0 ..
//#                 from j on to `ss`, by the subgroups' rows
//#   exponentials(..)  statements: of the scores in `ss` by the references that a lane knows, to
//#                 `hs` from `p_start` on, their sums `fresh`, and the greatest exponent; `seen` is
//#                 what becomes of the score s of the token ROW and the key KEY, told by their
//#                 masks SEEN and SIGHT
//#   raise(..)     statements: new references where a score exceeds the one before by more than
//#                 `most`, `headroom` below the greatest; what its token's sums fade by
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
//% macro take(name, matrix, size, each, columns, stride)
//% for i in range(each)
//% for e in range(columns)
  let {{ name }}{{ i }}_{{ e }} = coopLoadT<{{ matrix }}<f16, A>>(
    &hs[(part_row + {{ i * size }}u) * {{ stride }}u + {{ e * size }}u], {{ stride }}u);
//% endfor
//% endfor
//% endmacro
//% macro scores(name, with, matrix, size, each, columns, start, to, stride, s_stride, held)
//% for i in range(each)
      var {{ name }}{{ i }} = zero;
//% endfor
//% for e in range(columns)
      let {{ name }}b{{ e }} = coopLoad<{{ matrix }}<f16, B>>(
        &hs[here + {{ start + e * size }}u + j * {{ stride }}u], {{ stride }}u);
//% for i in range(each)
      {{ name }}{{ i }} =
        coopMultiplyAdd({{ with }}{{ i }}_{{ e }}, {{ name }}b{{ e }}, {{ name }}{{ i }});
//% endfor
//% endfor
      {{ held }}
//% for i in range(each)
        // naga wants everything that is stored, and where, computed by a statement of its own.
        let to{{ i }} = &ss[{{ to }}u + (part_row + {{ i * size }}u) * {{ s_stride }}u + j];
        let sum{{ i }} = {{ name }}{{ i }};
        coopStoreT(sum{{ i }}, to{{ i }}, {{ s_stride }}u);
//% endfor
      }
//% endmacro
//% macro put(name, j, count, size, each, s_stride, held)
  workgroupBarrier();
  {{ held }}
//% for i in range(each)
//% for u in range(count)
    // naga wants everything that is stored, and where, computed by a statement of its own.
    let to{{ i }}_{{ u }} = &ss[(part_row + {{ i * size }}u) * {{ s_stride }}u + {{ u * size }}u];
    let sum{{ i }}_{{ u }} = {{ name }}{{ i }}_{{ j + u }};
    coopStoreT(sum{{ i }}_{{ u }}, to{{ i }}_{{ u }}, {{ s_stride }}u);
//% endfor
//% endfor
  }
  workgroupBarrier();
//% endmacro
//% macro exponentials(passes, keys, s_stride, p_start, most, seen)
//% for p in range(passes)
    fresh{{ p }} = 0.0;
//% for e in range(keys // 8)
    {
      var s = fma(
        ss[here + row{{ p }} * {{ s_stride }}u + eighth + {{ 8 * e }}u], sizes.scale,
        -reference{{ p }});
//% set of_row = seen | replace("ROW", "row" ~ p) | replace("SEEN", "seen" ~ p)
//% set of_key = of_row | replace("KEY", "tile + eighth + " ~ 8 * e ~ "u")
      s = {{ of_key | replace("SIGHT", "mask" ~ e) }};
      greatest = max(greatest, s);
      // No further, too, where scores are so huge that a reference is not exact.
      let h = f16(exp2(min(s, {{ most }}.0)));
      fresh{{ p }} += f32(h);
      hs[{{ p_start }}u + row{{ p }} * {{ s_stride }}u + eighth + {{ 8 * e }}u] = h;
    }
//% endfor
//% endfor
//% endmacro
//% macro raise(rows, keys, invocations, passes, s_stride, most, headroom, seen)
//% set of_row = seen | replace("ROW", "row")
//% set of_row = of_row | replace("SEEN", "mask[min(first + row, sizes.tokens - 1u)]")
//% set of_key = of_row | replace("KEY", "tile + key")
//% set of_key = of_key | replace("SIGHT", "mask[min(tile + key, sizes.keys - 1u)]")
      for (var row = lane; row < {{ rows }}u; row += {{ invocations }}u) {
        let before = references[row];
        var peak = nothing;
        var over = nothing;
        for (var key = 0u; key < {{ keys }}u; key++) {
          var s = ss[row * {{ s_stride }}u + key] * sizes.scale;
          peak = max(peak, {{ of_key }});
          s = fma(ss[row * {{ s_stride }}u + key], sizes.scale, -before);
          over = max(over, {{ of_key }});
        }
        let now = select(before, peak - {{ headroom }}.0, over > {{ most }}.0);
        references[row] = now;
        fades[row] = exp2(before - now);
      }
      workgroupBarrier();
//% for p in range(passes)
      reference{{ p }} = references[row{{ p }}];
      total{{ p }} *= fades[row{{ p }}];
//% endfor
//% endmacro
