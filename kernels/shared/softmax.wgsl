//# Softmax attention without the score matrix, as all attention kernels do it.
//# A block of `block` keys from `key` on, for `per_lane` tokens of an invocation: scores s, peaks,
//# totals, weights p, and the weighted values added to the sums. `end`: the expression of the keys'
//# end. `sees`: the condition under which token TOKEN (a number, with which names end) reads key
//# KEY. Heads of D vectors are held in q, or, if not `whole`, read again, and sums made of P of
//# them from `offset` on.
//% import "shared/dot" as dot
//% macro add_keys(per_lane, block, vector, D, P, whole, staged, end, sees)
//% set V = "vec4<f32>" if vector == 4 else "f32"
//% for j in range(block)
//% if staged
  let at{{ j }} = (key - tile + {{ j }}u) * {{ D }}u;
//% else
  let at{{ j }} = (shared_entry + min(key + {{ j }}u, {{ end }} - 1u)) * sizes.channels;
//% endif
//% for r in range(per_lane)
  var s{{ r }}_{{ j }} = 0.0;
//% endfor
//% endfor
//% if whole
//% for e in range(D)
//% for j in range(block)
  let k{{ j }}_{{ e }} = {{ "ks[at" ~ j if staged else "k[at" ~ j ~ " + head" }} + {{ e }}u];
//% for r in range(per_lane)
{{ dot.add("s" ~ r ~ "_" ~ j, "q" ~ r ~ "_" ~ e, "k" ~ j ~ "_" ~ e, vector) }}
//% endfor
//% endfor
//% endfor
//% else
  for (var e = 0u; e < {{ D }}u; e++) {
//% for r in range(per_lane)
    let qe{{ r }} = q[start{{ r }} + head + e] * sizes.scale;
//% endfor
//% for j in range(block)
    let k{{ j }} = k[at{{ j }} + head + e];
//% for r in range(per_lane)
{{ dot.add("s" ~ r ~ "_" ~ j, "qe" ~ r, "k" ~ j, vector) }}
//% endfor
//% endfor
  }
//% endif
//% for r in range(per_lane)
  var now{{ r }} = peak{{ r }};
//% for j in range(block)
//% set seen = sees | replace("KEY", "(key + " ~ j ~ "u)") | replace("TOKEN", r ~ "")
  s{{ r }}_{{ j }} = select(nothing, s{{ r }}_{{ j }}, {{ seen }});
  now{{ r }} = max(now{{ r }}, s{{ r }}_{{ j }});
//% endfor
  let fade{{ r }} = exp2(peak{{ r }} - now{{ r }});
  peak{{ r }} = now{{ r }};
  total{{ r }} = total{{ r }} * fade{{ r }};
//% for j in range(block)
  let p{{ r }}_{{ j }} = exp2(s{{ r }}_{{ j }} - now{{ r }});
  total{{ r }} += p{{ r }}_{{ j }};
//% endfor
//% endfor
//% for e in range(P)
//% for j in range(block)
//% if staged
  let v{{ j }}_{{ e }} = vs[at{{ j }} + {{ e }}u];
//% elif whole
  let v{{ j }}_{{ e }} = v[at{{ j }} + offset + {{ e }}u];
//% else
  let v{{ j }}_{{ e }} = v[at{{ j }} + min(offset + {{ e }}u, head + {{ D - 1 }}u)];
//% endif
//% endfor
//% for r in range(per_lane)
  sum{{ r }}_{{ e }} = sum{{ r }}_{{ e }} * fade{{ r }};
//% for j in range(block)
  sum{{ r }}_{{ e }} = fma({{ V }}(p{{ r }}_{{ j }}), v{{ j }}_{{ e }}, sum{{ r }}_{{ e }});
//% endfor
//% endfor
//% endfor
//% endmacro
