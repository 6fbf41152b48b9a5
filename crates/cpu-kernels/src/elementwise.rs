//! Passes over a tensor's rows that end in epilogue, and what they share: how rows are cut, and
//! zeros around feature maps.

use super::epilogue::{self, Epilogue, Part};
use super::parallel::{MEMORY, Shared, piece, pieces};
use super::simd::{Level, kernel};

/// Zeros around a feature map of so many lines and columns: at the top, bottom, left and right.
#[derive(Clone, Copy, Debug)]
pub struct Padding {
    pub height: usize,
    pub width: usize,
    pub edges: [usize; 4],
}

impl Padding {
    /// Lines and columns of the padded map.
    pub fn padded(&self) -> [usize; 2] {
        let [top, bottom, left, right] = self.edges;
        [self.height + top + bottom, self.width + left + right]
    }
}

/// Elements of a run: what is made of them is still near when the epilogue come.
const RUN: usize = 4096;

/// Makes rows in runs: `make` writes rows `first ..` of a result, so many that there is room for,
/// then the epilogue follow. Operations for an element: `cost`.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub(crate) fn by_runs(
    level: Level,
    rows: usize,
    channels: usize,
    padding: Option<&Padding>,
    cost: usize,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
    make: impl Fn(usize, &mut [f32]) + Sync,
) {
    epilogue::check(epilogue, rows, channels);
    if channels == 0 || rows == 0 {
        return;
    }
    let cost = cost + MEMORY * (1 + epilogue.len());
    let longest = (RUN / channels).max(1);
    let run = |first: usize, part: &mut [f32]| {
        for (i, run) in part.chunks_mut(longest * channels).enumerate() {
            let first = first + i * longest;
            make(first, run);
            let rows = [first, first + run.len() / channels];
            let part = Part { y: run.as_mut_ptr(), channels, rows, columns: [0, channels] };
            unsafe { epilogue::apply(level, epilogue, part) };
        }
    };
    let Some(padding) = padding else {
        assert_eq!(y.len(), rows * channels);
        let each = piece(rows, longest, cost * channels);
        let count = rows.div_ceil(each);
        let y = Shared::new(y);
        return pieces(count, rows * channels * cost, |i| {
            let (start, end) = (i * each, ((i + 1) * each).min(rows));
            run(start, unsafe { y.part(start * channels, (end - start) * channels) });
        });
    };
    let [top, _, left, _] = padding.edges;
    let [height, width] = padding.padded();
    let lines = rows / (padding.height * padding.width).max(1) * height;
    assert!(
        y.len() == lines * width * channels && rows.is_multiple_of(padding.height * padding.width)
    );
    let each = piece(lines, 1, cost * width * channels);
    let y = Shared::new(y);
    pieces(lines.div_ceil(each), y_work(lines * width * channels, cost), |i| {
        for line in i * each..((i + 1) * each).min(lines) {
            let out = unsafe { y.part(line * width * channels, width * channels) };
            let (b, at) = (line / height, line % height);
            let inside = at.checked_sub(top).filter(|at| *at < padding.height);
            let Some(at) = inside else {
                out.fill(0.0);
                continue;
            };
            let (before, rest) = out.split_at_mut(left * channels);
            let (own, after) = rest.split_at_mut(padding.width * channels);
            before.fill(0.0);
            after.fill(0.0);
            run((b * padding.height + at) * padding.width, own);
        }
    });
}

fn y_work(elements: usize, cost: usize) -> usize {
    elements * cost
}

/// `x`, then the epilogue: activations, sums, matmuls, scaling, their gradients, padding, low-rank
/// updates.
pub fn elementwise(
    level: Level,
    x: &[f32],
    channels: usize,
    padding: Option<&Padding>,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    let rows = x.len() / channels.max(1);
    by_runs(level, rows, channels, padding, 0, epilogue, y, |first, y| {
        y.copy_from_slice(&x[first * channels..][..y.len()]);
    });
}

/// The epilogue, of zeros: low-rank updates without a base.
pub fn of_zeros(level: Level, channels: usize, epilogue: &[Epilogue<'_>], y: &mut [f32]) {
    let rows = y.len() / channels.max(1);
    by_runs(level, rows, channels, None, 0, epilogue, y, |_, y| y.fill(0.0));
}

/// `value` everywhere.
pub fn filled(y: &mut [f32], value: f32) {
    let each = piece(y.len(), 1024, MEMORY);
    let (count, length) = (y.len().div_ceil(each), y.len());
    let y = Shared::new(y);
    pieces(count, length * MEMORY, |i| {
        let start = i * each;
        unsafe { y.part(start, each.min(length - start)) }.fill(value);
    });
}

/// Copies `rows` runs of `width` elements: run `r` from `r * from[0] + from[1]` to
/// `r * to[0] + to[1]`. Slices, joins.
pub fn copy(x: &[f32], y: &mut [f32], rows: usize, width: usize, from: [usize; 2], to: [usize; 2]) {
    if rows == 0 || width == 0 {
        return;
    }
    assert!(x.len() >= (rows - 1) * from[0] + from[1] + width);
    assert!(y.len() >= (rows - 1) * to[0] + to[1] + width && (rows == 1 || to[0] >= width));
    let target = Shared::new(y);
    if rows < 16 {
        // Few long runs.
        let each = piece(width, 1024, MEMORY);
        let parts = width.div_ceil(each);
        return pieces(rows * parts, rows * width * MEMORY, |i| {
            let (r, start) = (i / parts, i % parts * each);
            let length = each.min(width - start);
            let part = unsafe { target.part(r * to[0] + to[1] + start, length) };
            part.copy_from_slice(&x[r * from[0] + from[1] + start..][..length]);
        });
    }
    let each = piece(rows, 1, width * MEMORY);
    pieces(rows.div_ceil(each), rows * width * MEMORY, |i| {
        for r in i * each..((i + 1) * each).min(rows) {
            let part = unsafe { target.part(r * to[0] + to[1], width) };
            part.copy_from_slice(&x[r * from[0] + from[1]..][..width]);
        }
    });
}

/// `x` `[outer, inner]` repeated to `[outer, middle, inner]`.
pub fn broadcast(x: &[f32], [outer, middle, inner]: [usize; 3], y: &mut [f32]) {
    assert!(x.len() == outer * inner && y.len() == outer * middle * inner);
    let rows = outer * middle;
    let each = piece(rows, 1, inner * MEMORY);
    let target = Shared::new(y);
    pieces(rows.div_ceil(each), rows * inner * MEMORY, |i| {
        for r in i * each..((i + 1) * each).min(rows) {
            let part = unsafe { target.part(r * inner, inner) };
            part.copy_from_slice(&x[r / middle * inner..][..inner]);
        }
    });
}

/// Values, then gates, `[.., 2 d]`: value * gelu(gate), then the epilogue.
pub fn geglu(level: Level, x: &[f32], d: usize, epilogue: &[Epilogue<'_>], y: &mut [f32]) {
    assert_eq!(x.len(), 2 * y.len());
    let rows = y.len() / d.max(1);
    by_runs(level, rows, d, None, 48, epilogue, y, |first, y| unsafe {
        gate(level, x[first * 2 * d..].as_ptr(), y.as_mut_ptr(), y.len() / d, d);
    });
}

kernel! {
    fn gate(s: S, x: *const f32, y: *mut f32, rows: usize, d: usize) {
        use super::activation::{Gelu, Unary};
        unsafe {
            for r in 0..rows {
                let (x, y) = (x.add(r * 2 * d), y.add(r * d));
                let mut c = 0;
                while c < d {
                    let n = (d - c).min(S::LANES);
                    let gate = Gelu.at(s, s.load_first(x.add(d + c), n));
                    s.store_first(y.add(c), s.mul(s.load_first(x.add(c), n), gate), n);
                    c += n;
                }
            }
        }
    }
}

/// Of `x` `[.., 2 d]` and `dy` `[.., d]`: dy * gelu(gate) for the values, dy * value * gelu'(gate)
/// for the gates.
pub fn geglu_gradient(level: Level, x: &[f32], dy: &[f32], d: usize, dx: &mut [f32]) {
    assert!(x.len() == 2 * dy.len() && dx.len() == x.len());
    let rows = dy.len() / d.max(1);
    by_runs(level, rows, 2 * d, None, 48, &[], dx, |first, dx| unsafe {
        let (x, dy) = (x[first * 2 * d..].as_ptr(), dy[first * d..].as_ptr());
        gate_gradient(level, x, dy, dx.as_mut_ptr(), dx.len() / (2 * d), d);
    });
}

kernel! {
    fn gate_gradient(s: S, x: *const f32, dy: *const f32, dx: *mut f32, rows: usize, d: usize) {
        use super::math::normal;
        unsafe {
            for r in 0..rows {
                let (x, dy, dx) = (x.add(r * 2 * d), dy.add(r * d), dx.add(r * 2 * d));
                let mut c = 0;
                while c < d {
                    let n = (d - c).min(S::LANES);
                    let (value, gate) = (s.load_first(x.add(c), n), s.load_first(x.add(d + c), n));
                    let dy = s.load_first(dy.add(c), n);
                    let (below, density) = normal(s, gate);
                    s.store_first(dx.add(c), s.mul(dy, s.mul(gate, below)), n);
                    let slope = s.fma(gate, density, below);
                    s.store_first(dx.add(d + c), s.mul(s.mul(dy, value), slope), n);
                    c += n;
                }
            }
        }
    }
}
