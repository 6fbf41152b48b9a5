//# A low-rank update added to a register tile before its epilogue: c[row, n] += sum_k
//# lora_hidden[row, k] lora_up[n, k].
//# lora_hidden [rows, rank] and lora_up [channels, rank] ([rank, channels] if transposed) are f32
//# as they lie. `lora` is false or {transposed, vector_rank, vector_up}: what `rank`, and a line of
//# `lora_up`, are counted in.
//#   members(..)     members of the uniform struct
//#   bindings(..)    at `first` and the one after
//#   accumulate(..)  statements: adds to {{c}}0 .. for the rows {{row}}0 .. and the four outputs
//#                   from 4 * quad on
//% macro members(lora)
//% if lora
  rank: u32,
//% endif
//% endmacro
//% macro bindings(lora, first)
//% if lora
//% set hidden = "vec4<f32>" if lora.vector_rank == 4 else "f32"
//% set up = "vec4<f32>" if lora.vector_up == 4 else "f32"
@group(0) @binding({{ first }}) var<storage, read> lora_hidden: array<{{ hidden }}>;
@group(0) @binding({{ first + 1 }}) var<storage, read> lora_up: array<{{ up }}>;
//% endif
//% endmacro
//% macro accumulate(lora, vector_out, tile, quad, c, row, suffix="")
//% if lora
//% set rv = lora.vector_rank
  {
//% for j in range(4)
//% if vector_out == 4
    let n{{ j }} = {{ quad }} * 4u + {{ j }}u;
//% else
    let n{{ j }} = min({{ quad }} * 4u + {{ j }}u, sizes.channels - 1u);
//% endif
//% endfor
    for (var k = 0u; k < sizes.rank; k++) {
//% if lora.transposed
//% for kk in range(rv)
//% if lora.vector_up == 4
      let u{{ kk }} = lora_up[(k * {{ rv }}u + {{ kk }}u) * sizes.channels + {{ quad }}];
//% else
//% set line = "(k * " ~ rv ~ "u + " ~ kk ~ "u) * sizes.channels + "
      let u{{ kk }} = vec4<f32>(
        lora_up[{{ line }}n0],
        lora_up[{{ line }}n1],
        lora_up[{{ line }}n2],
        lora_up[{{ line }}n3]
      );
//% endif
//% endfor
//% else
//% for j in range(4)
      let w{{ j }} = lora_up[n{{ j }} * sizes.rank + k];
//% endfor
//% for kk in range(rv)
//% set part = "." ~ "xyzw"[kk] if rv == 4 else ""
      let u{{ kk }} = vec4<f32>(w0{{ part }}, w1{{ part }}, w2{{ part }}, w3{{ part }});
//% endfor
//% endif
//% for i in range(tile)
      let t{{ i }} = lora_hidden[{{ row }}{{ i }} * sizes.rank + k];
//% set sum = c ~ i ~ suffix
//% for kk in range(rv)
//% set part = "." ~ "xyzw"[kk] if rv == 4 else ""
      {{ sum }} = fma(vec4<f32>(t{{ i }}{{ part }}), u{{ kk }}, {{ sum }});
//% endfor
//% endfor
    }
  }
//% endif
//% endmacro
