//# A low-rank update added to a register tile before its stages: c[row, n] += sum_k narrow[row, k] wide[n, k].
//# narrow [rows, rank] and wide [channels, rank] ([rank, channels] if transposed) are f32 as they lie. `low_rank` is false or
//# {transposed, vector_rank, vector_wide}: what `rank`, and a line of `wide`, are counted in.
//#   members(..)     members of the uniform struct
//#   bindings(..)    at `first` and the one after
//#   accumulate(..)  statements: adds to {{c}}0 .. for the rows {{row}}0 .. and the four outputs from 4 * quad on
//% macro members(low_rank)
//% if low_rank
  rank: u32,
//% endif
//% endmacro
//% macro bindings(low_rank, first)
//% if low_rank
@group(0) @binding({{ first }}) var<storage, read> narrow: array<{{ "vec4<f32>" if low_rank.vector_rank == 4 else "f32" }}>;
@group(0) @binding({{ first + 1 }}) var<storage, read> wide: array<{{ "vec4<f32>" if low_rank.vector_wide == 4 else "f32" }}>;
//% endif
//% endmacro
//% macro accumulate(low_rank, vector_out, tile, quad, c, row, suffix="")
//% if low_rank
//% set rv = low_rank.vector_rank
  {
//% for j in range(4)
//% if vector_out == 4
    let n{{ j }} = {{ quad }} * 4u + {{ j }}u;
//% else
    let n{{ j }} = min({{ quad }} * 4u + {{ j }}u, sizes.channels - 1u);
//% endif
//% endfor
    for (var k = 0u; k < sizes.rank; k++) {
//% if low_rank.transposed
//% for kk in range(rv)
//% if low_rank.vector_wide == 4
      let u{{ kk }} = wide[(k * {{ rv }}u + {{ kk }}u) * sizes.channels + {{ quad }}];
//% else
//% set line = "(k * " ~ rv ~ "u + " ~ kk ~ "u) * sizes.channels + "
      let u{{ kk }} = vec4<f32>(wide[{{ line }}n0], wide[{{ line }}n1], wide[{{ line }}n2], wide[{{ line }}n3]);
//% endif
//% endfor
//% else
//% for j in range(4)
      let w{{ j }} = wide[n{{ j }} * sizes.rank + k];
//% endfor
//% for kk in range(rv)
//% set part = "." ~ "xyzw"[kk] if rv == 4 else ""
      let u{{ kk }} = vec4<f32>(w0{{ part }}, w1{{ part }}, w2{{ part }}, w3{{ part }});
//% endfor
//% endif
//% for i in range(tile)
      let t{{ i }} = narrow[{{ row }}{{ i }} * sizes.rank + k];
//% for kk in range(rv)
      {{ c }}{{ i }}{{ suffix }} = fma(vec4<f32>(t{{ i }}{{ "." ~ "xyzw"[kk] if rv == 4 else "" }}), u{{ kk }}, {{ c }}{{ i }}{{ suffix }});
//% endfor
//% endfor
    }
  }
//% endif
//% endmacro
