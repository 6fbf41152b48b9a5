//# Elementwise work on a result that is still in registers: what the graph folded into the kernel
//# that stores it.
//#   members(..)   members of the uniform struct
//#   bindings(..)  operands, from binding `first` on; V is the vector type that the kernel stores
//#   functions(..) the functions that the epilogue call
//#   derivative(f) a function's derivative
//#   apply(..)     statements that change `v`, at `row` and `channel` (in vectors), `index` = row *
//#                 channels + channel
//% macro members(epilogue, factors, rows_per_batch, operand_rows)
//% for i in range(factors)
  factor{{ i }}: f32,
//% endfor
//% if rows_per_batch
  rows_per_batch: u32,
//% endif
//% if operand_rows
  operand_rows: u32,
//% endif
//% endmacro
//% macro bindings(epilogue, first, V)
//% set ns = namespace(slot=first)
//% for entry in epilogue
//% if entry.kind in ["add", "multiply", "derivative"]
//% set T = "f32" if entry.kind != "derivative" and entry.how == "scalar" else V
@group(0) @binding({{ ns.slot }}) var<storage, read> {{ entry.name }}: array<{{ T }}>;
//% set ns.slot = ns.slot + 1
//% endif
//% endfor
//% endmacro
//% macro functions(epilogue, V)
//% for kind in epilogue | map(attribute="kind") | unique
//% if kind == "silu"
fn silu(x: {{ V }}) -> {{ V }} { return x / (1.0 + exp(-max(x, {{ V }}(-80.0)))); }
//% elif kind == "quick_gelu"
fn quick_gelu(x: {{ V }}) -> {{ V }} { return x / (1.0 + exp(-1.702 * max(x, {{ V }}(-47.0)))); }
//% elif kind == "relu"
fn relu(x: {{ V }}) -> {{ V }} { return max(x, {{ V }}(0.0)); }
//% elif kind == "gelu_tanh"
fn gelu_tanh(x: {{ V }}) -> {{ V }} {
  let inner = clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), {{ V }}(-15.0), {{ V }}(15.0));
  return 0.5 * x * (1.0 + tanh(inner));
}
//% elif kind == "gelu"
{{ gelu(V) }}
//% endif
//% endfor
//% set derivatives = epilogue | selectattr("kind", "eq", "derivative")
//% for function in derivatives | map(attribute="function") | unique
{{ derivative(function, V) }}
//% endfor
//% endmacro
//% macro derivative(function, V)
//% if function == "silu"
fn silu_derivative(x: {{ V }}) -> {{ V }} {
  let s = 1.0 / (1.0 + exp(-max(x, {{ V }}(-80.0))));
  return s * (1.0 + x * (1.0 - s));
}
//% elif function == "quick_gelu"
fn quick_gelu_derivative(x: {{ V }}) -> {{ V }} {
  let s = 1.0 / (1.0 + exp(-1.702 * max(x, {{ V }}(-47.0))));
  return s * (1.0 + 1.702 * x * (1.0 - s));
}
//% elif function == "relu"
fn relu_derivative(x: {{ V }}) -> {{ V }} {
  return select({{ V }}(0.0), {{ V }}(1.0), x > {{ V }}(0.0));
}
//% elif function == "exp"
fn exp_derivative(x: {{ V }}) -> {{ V }} { return exp(x); }
//% elif function == "gelu_tanh"
fn gelu_tanh_derivative(x: {{ V }}) -> {{ V }} {
  let t =
    tanh(clamp(0.7978845608028654 * (x + 0.044715 * x * x * x), {{ V }}(-15.0), {{ V }}(15.0)));
  return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 0.134145 * x * x);
}
//% elif function == "gelu"
// Phi(x) + x phi(x), Phi as in gelu().
fn gelu_derivative(x: {{ V }}) -> {{ V }} {
  let z = min(abs(x) * 0.7071067811865476, {{ V }}(9.0));
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let bell = exp(-z * z);
  let tail = t * (0.254829592 + t * (-0.284496736
    + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * bell;
  return select(0.5 * tail, 1.0 - 0.5 * tail, x > {{ V }}(0.0)) + x * bell * 0.3989422804014327;
}
//% endif
//% endmacro
//% macro gelu(V)
// x * Phi(x); the error function by Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
fn gelu(x: {{ V }}) -> {{ V }} {
  let z = min(abs(x) * 0.7071067811865476, {{ V }}(9.0));
  let t = 1.0 / (1.0 + 0.3275911 * z);
  let tail = t * (0.254829592 + t * (-0.284496736
    + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))) * exp(-z * z);
  return 0.5 * (x + abs(x) * (1.0 - tail));
}
//% endmacro
//% macro apply(epilogue, v, row, channel, index)
//% for entry in epilogue
//% if entry.kind in ["add", "multiply"]
//% set sign = "+" if entry.kind == "add" else "*"
//% if entry.how == "same"
  {{ v }} = {{ v }} {{ sign }} {{ entry.name }}[{{ index }}];
//% elif entry.how == "channels"
  {{ v }} = {{ v }} {{ sign }} {{ entry.name }}[{{ channel }}];
//% elif entry.how == "rows"
  {{ v }} = {{ v }} {{ sign }}
    {{ entry.name }}[({{ row }}) % sizes.operand_rows * sizes.channels + {{ channel }}];
//% elif entry.how == "batch"
  {{ v }} = {{ v }} {{ sign }}
    {{ entry.name }}[({{ row }}) / sizes.rows_per_batch * sizes.channels + {{ channel }}];
//% else
  {{ v }} = {{ v }} {{ sign }} {{ entry.name }}[0];
//% endif
//% elif entry.kind == "derivative"
  {{ v }} = {{ v }} * {{ entry.function }}_derivative({{ entry.name }}[{{ index }}]);
//% elif entry.kind == "scale"
  {{ v }} = {{ v }} * sizes.{{ entry.name }};
//% elif entry.kind == "exp"
  {{ v }} = exp({{ v }});
//% else
  {{ v }} = {{ entry.kind }}({{ v }});
//% endif
//% endfor
//% endmacro
