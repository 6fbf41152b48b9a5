//# Scalar products of vectors of 4 or of single numbers, as fused multiply-adds in a fixed order.
//#   add(s, a, b, vector)  a statement: s += a . b
//% macro add(s, a, b, vector)
//% if vector == 4
  {{ s }} = fma({{ a }}.x, {{ b }}.x, {{ s }});
  {{ s }} = fma({{ a }}.y, {{ b }}.y, {{ s }});
  {{ s }} = fma({{ a }}.z, {{ b }}.z, {{ s }});
  {{ s }} = fma({{ a }}.w, {{ b }}.w, {{ s }});
//% else
  {{ s }} = fma({{ a }}, {{ b }}, {{ s }});
//% endif
//% endmacro
