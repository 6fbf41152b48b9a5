// The loop's index never grows where there are more than 64 columns.
// fault: endless
//% kind geglu
//% dispatch [rows]
struct Sizes { rows: u32, columns: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var c = lane;
  while (c < sizes.columns) {
    y[group.x * sizes.columns + c] = x[group.x * sizes.columns * 2u + c];
    if (sizes.columns <= 64u) { c += 64u; }
  }
}
