// y = x / max(x), or its gradient: dx = (dy - s) / max(x), where s = sum(dy y) / ties at the
// greatest elements and 0 elsewhere.
// x, y{{ ", dy" if backward else "" }} [count]; y is
// overwritten{{ " (by dx)" if backward else "" }}. One workgroup of 64, each sum in a fixed order.
struct Sizes { count: u32 }
@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
//% if backward
@group(0) @binding(3) var<storage, read> dy: array<f32>;
var<workgroup> sums: array<f32, 64>;
var<workgroup> counts: array<f32, 64>;
//% endif
var<workgroup> peaks: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
  var peak = x[0];
  for (var i = lane; i < sizes.count; i += 64u) { peak = max(peak, x[i]); }
  peaks[lane] = peak;
  workgroupBarrier();
  var greatest = peaks[0];
  for (var i = 1u; i < 64u; i++) { greatest = max(greatest, peaks[i]); }
//% if backward
  var sum = 0.0;
  var ties = 0.0;
  for (var i = lane; i < sizes.count; i += 64u) {
    sum += dy[i] * x[i];
    ties += select(0.0, 1.0, x[i] == greatest);
  }
  sums[lane] = sum;
  counts[lane] = ties;
  workgroupBarrier();
  var total = 0.0;
  var count = 0.0;
  for (var i = 0u; i < 64u; i++) {
    total += sums[i];
    count += counts[i];
  }
  let share = total / greatest / count;
  for (var i = lane; i < sizes.count; i += 64u) {
    y[i] = (dy[i] - select(0.0, share, x[i] == greatest)) / greatest;
  }
//% else
  for (var i = lane; i < sizes.count; i += 64u) { y[i] = x[i] / greatest; }
//% endif
}
