// y[r, n] += sum_k x[r, k] w[n, k] over {{ chunk }} inputs; with `first`, y is overwritten; with `last`, y = epilogue(y). With a window, row
// r gathers the pixels under one tap of a convolution. x [.., into] f32; w in panels [out / 64][taps][into][64], f16 or f32.
// For drivers that compile a subgroup to one vector of the CPU: {{ tile }} rows, from `first_row` on, by {{ 2 * lanes }} outputs a workgroup of {{ lanes }} lanes. There is no
// loop and no branch, and every load is uniform: such a driver masks and checks whatever stands in a loop, but
// turns what `lanes` loads of neighbours are selected from, by a lane number that it knows, into one load of a vector.
// `channels` counts outputs, a multiple of {{ 2 * lanes }}. Needs subgroups of {{ lanes }}{{ " and f16" if half }}.
{{ "enable f16;" if half }}
//% import "shared/epilogue" as ep
//% import "shared/vectors" as vectors
//% set columns = 2
//% set W = "f16" if half else "f32"
struct Sizes {
  first_row: u32,
  rows: u32, // up to here
  channels: u32,
  x_start: u32, // of the chunk in a row (and of the tap)
  x_stride: u32,
  w_start: u32, // of the chunk in a panel
  w_stride: u32,
  first: u32,
//% if window
  stride: u32,
  from_height: u32,
  from_width: u32,
  to_height: u32,
  to_width: u32,
//% endif
{{ ep.members(epilogue, factors, rows_per_batch, operand_rows) }}
}
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<{{ W }}>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{{ ep.bindings(epilogue, 4, "f32") }}
{{ ep.functions(epilogue, "f32") }}
//% for T in (["f32", "f16"] if half else ["f32"])
{{ vectors.spread(T, lanes) }}
//% endfor

@compute @workgroup_size({{ lanes }})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
  // Indices are below 2^28: said here, so that the sums of index and constant below are known not to overflow.
  const most = 0x0fffffffu;
  let first = sizes.first_row + group.y * {{ tile }}u;
  let output = group.x * {{ columns * lanes }}u;
  let weights = (output / 64u * sizes.w_stride + sizes.w_start + output % 64u) & most;
  let opaque = sizes.first / 2u; // 0
//% for i in range(tile)
  let row{{ i }} = min(first + {{ i }}u, sizes.rows - 1u);
//% if window
//% if i == 0
  let column0 = row0 % sizes.to_width;
  let line0 = row0 / sizes.to_width % sizes.to_height;
  let entry0 = row0 / sizes.to_width / sizes.to_height;
//% else
  // Counted on, as divisions take long.
  let next{{ i }} = column{{ i - 1 }} + row{{ i }} - row{{ i - 1 }};
  let column{{ i }} = select(next{{ i }}, 0u, next{{ i }} == sizes.to_width);
  let below{{ i }} = line{{ i - 1 }} + select(0u, 1u, next{{ i }} == sizes.to_width);
  let line{{ i }} = select(below{{ i }}, 0u, below{{ i }} == sizes.to_height);
  let entry{{ i }} = entry{{ i - 1 }} + select(0u, 1u, below{{ i }} == sizes.to_height);
//% endif
  let x{{ i }} = (((entry{{ i }} * sizes.from_height + line{{ i }} * sizes.stride) * sizes.from_width + column{{ i }} * sizes.stride) * sizes.x_stride
    + sizes.x_start) & most;
//% else
  let x{{ i }} = (row{{ i }} * sizes.x_stride + sizes.x_start) & most;
//% endif
  let y{{ i }} = (row{{ i }} * sizes.channels + output + opaque) & most;
//% for v in range(columns)
  var c{{ i }}_{{ v }} = select({{ vectors.load("f32", lanes, "y", "y" ~ i, v * lanes) }}, 0.0, sizes.first == 1u);
//% endfor
//% endfor
//% for k in range(chunk)
//% for v in range(columns)
  let b{{ k }}_{{ v }} = f32({{ vectors.load(W, lanes, "w", "weights", k * 64 + v * lanes) }});
//% endfor
//% for i in range(tile)
  let a{{ i }}_{{ k }} = x[x{{ i }} + {{ k }}u];
//% for v in range(columns)
  c{{ i }}_{{ v }} = fma(a{{ i }}_{{ k }}, b{{ k }}_{{ v }}, c{{ i }}_{{ v }});
//% endfor
//% endfor
//% endfor
//% if last
//% for i in range(tile)
//% for v in range(columns)
  {
    let channel = output + {{ v * lanes }}u + lane;
    let index = row{{ i }} * sizes.channels + channel;
    var v = c{{ i }}_{{ v }};
{{ ep.apply(epilogue, "v", "row" ~ i, "channel", "index") }}
    c{{ i }}_{{ v }} = v;
  }
//% endfor
//% endfor
//% endif
  // The stores wait for all sums: compilers would else move each behind the stores of those before it. Rows beyond the last are that row
  // again, and store the same.
  let all = c0_0{% for i in range(tile) %}{% for v in range(columns) %}{% if i + v > 0 %} + c{{ i }}_{{ v }}{% endif %}{% endfor %}{% endfor %};
  let wait = select(0u, opaque, subgroupBroadcast(all, 0u) > 3.0e38);
//% for i in range(tile)
  let z{{ i }} = (y{{ i }} + wait) & most;
//% for v in range(columns)
{{ vectors.store(lanes, "y", "z" ~ i, v * lanes, "c" ~ i ~ "_" ~ v) }}
//% endfor
//% endfor
}
