//# Loads of neighbours by a subgroup of `lanes`, for drivers that compile it to one vector of the CPU; see matmul_vectors.wgsl.
//# A function that gives lane i its value i, for elements of type T ...
//% macro spread(T, lanes)
fn spread_{{ T }}(lane: u32{% for i in range(lanes) %}, v{{ i }}: {{ T }}{% endfor %}) -> {{ T }} {
  var v = v0;
//% for i in range(1, lanes)
  v = select(v, v{{ i }}, lane == {{ i }}u);
//% endfor
  return v;
}
//% endmacro
//# ... and its call: elements array[base + offset ..], `offset` a constant.
//% macro load(T, lanes, array, base, offset)
spread_{{ T }}(lane{% for i in range(lanes) %}, {{ array }}[{{ base }} + {{ offset + i }}u]{% endfor %})
//% endmacro
//# Stores `value` there, outside of branches. A store to an address for each lane is a scatter; uniform stores of neighbours become one
//# store of a vector, but not of 16 lanes, which come with a scatter that is quick.
//% macro store(lanes, array, base, offset, value)
//% if lanes > 8
  {{ array }}[{{ base }} + {{ offset }}u + lane] = {{ value }};
//% else
//% for i in range(lanes)
  {{ array }}[{{ base }} + {{ offset + i }}u] = subgroupBroadcast({{ value }}, {{ i }}u);
//% endfor
//% endif
//% endmacro
