//! Matrix matmuls with a weight, and convolutions: matmuls whose rows are gathered.
//!
//! With its padding around it, a feature map's pixels under one line of the window lie in one
//! stretch: no rows are copied.

use super::epilogue::{self, Epilogue, Part};
use super::parallel::{PIECE, Shared, pieces, with_scratch};
use super::simd::{Level, Simd, kernel};
use super::tile::{Tile, multiply};
use super::weights::{PANEL, Weights};

/// Multiply-adds that are summed in one go: their weights, a panel wide, stay in the nearest
/// caches.
const DEPTH: usize = 1024;

/// Rows of a piece: all of them meet a panel while it is near.
const ROWS: usize = 256;
/// Elements of a piece's own rows: half a megabyte of them stays in a core's second cache.
const NEAR: usize = 128 << 10;

/// Pieces that keep many threads busy.
const ENOUGH: usize = 32;

/// Where the rows of a matmul lie: `lines` of `columns` rows each.
struct Rows {
    lines: usize,
    columns: usize,
    /// Lines of a batch entry; elements from one entry, line and row to the next.
    height: usize,
    batch_stride: usize,
    line_stride: usize,
    row_stride: usize,
    /// Elements from one line of the window to the next.
    window_stride: usize,
}

impl Rows {
    fn start(&self, line: usize, column: usize) -> usize {
        let (b, y) = (line / self.height, line % self.height);
        b * self.batch_stride + y * self.line_stride + column * self.row_stride
    }
}

/// `y[.., n] = sum_k x[.., k] w[n, k]`, then the `epilogue`.
pub fn linear(
    level: Level,
    x: &[f32],
    weights: &Weights,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    let rows = y.len() / weights.out.max(1);
    assert_eq!(weights.window, [1, 1]);
    assert!(x.len() == rows * weights.into && y.len() == rows * weights.out);
    let rows = Rows {
        lines: 1,
        columns: rows,
        height: 1,
        batch_stride: 0,
        line_stride: 0,
        row_stride: weights.into,
        window_stride: 0,
    };
    matmul(level, x, &rows, weights, epilogue, y);
}

/// "Valid" convolution of `x` `[batch, height, width, in]`, which carries its padding; then the
/// `epilogue`. `y` is `[batch, (height - kh) / stride + 1, (width - kw) / stride + 1, out]`.
pub fn conv2d(
    level: Level,
    x: &[f32],
    [batch, height, width]: [usize; 3],
    weights: &Weights,
    stride: usize,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    let [kh, kw] = weights.window;
    let channels = weights.into;
    assert!(
        stride > 0 && kh <= height && kw <= width && x.len() == batch * height * width * channels
    );
    let (lines, columns) = ((height - kh) / stride + 1, (width - kw) / stride + 1);
    assert_eq!(y.len(), batch * lines * columns * weights.out);
    let mut rows = Rows {
        lines: batch * lines,
        columns,
        height: lines,
        batch_stride: height * width * channels,
        line_stride: stride * width * channels,
        row_stride: stride * channels,
        window_stride: width * channels,
    };
    if [kh, kw, stride] == [1, 1, 1] {
        rows = Rows { lines: 1, columns: batch * lines * columns, height: 1, ..rows };
    }
    matmul(level, x, &rows, weights, epilogue, y);
}

fn matmul(
    level: Level,
    x: &[f32],
    rows: &Rows,
    weights: &Weights,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    let (out, depth) = (weights.out, weights.depth());
    let all = rows.lines * rows.columns;
    epilogue::check(epilogue, all, out);
    if all == 0 || out == 0 {
        return;
    }
    // Blocks of whole lines, or of parts of them.
    let most = (NEAR / weights.into.max(1)).clamp(48, ROWS);
    let parts = rows.columns.div_ceil(most);
    let columns = rows.columns.div_ceil(parts);
    let parts = rows.columns.div_ceil(columns);
    let segments = rows.lines * parts;
    let each = if parts > 1 { 1 } else { (most / columns).max(1) };
    let mut each = segments.div_ceil(segments.div_ceil(each));
    let panels = if weights.few() { 1 } else { out.div_ceil(PANEL) };
    let work = 2 * all * depth * if weights.few() { out } else { panels * PANEL } + 8 * depth * out;
    if weights.few() {
        // There is nothing to divide but the rows.
        each = each.min((PIECE * segments).div_ceil(work)).max(1);
    }
    let blocks = segments.div_ceil(each);
    let groups = ENOUGH.div_ceil(blocks).min(work.div_ceil(PIECE * blocks)).clamp(1, panels);
    let group = panels.div_ceil(groups);
    let groups = panels.div_ceil(group);
    let crowded =
        weights.window == [1, 1] && rows.lines == 1 && rows.row_stride.is_multiple_of(CROWDING);
    let y = Shared::new(y);
    let row_range = |segment: usize| {
        let (line, part) = (segment / parts, segment % parts);
        let first = part * columns;
        (line, first, columns.min(rows.columns - first))
    };
    pieces(blocks * groups, work, |piece| {
        // Neighbours in time share rows.
        let (block, group_number) = (piece / groups, piece % groups);
        let segments = block * each..((block + 1) * each).min(segments);
        if weights.few() {
            let room = weights.room(depth * out);
            return with_scratch(room, |room| {
                let w = weights.read(level, 0, depth * out, room);
                for segment in segments {
                    let (line, first, count) = row_range(segment);
                    let row = line * rows.columns + first;
                    unsafe {
                        let from = x.as_ptr().add(rows.start(line, first));
                        few_outputs(level, from, rows, weights, w, y.at(row * out), count);
                        let (rows, columns) = ([row, row + count], [0, out]);
                        let part = Part { y: y.at(row * out), channels: out, rows, columns };
                        epilogue::apply(level, epilogue, part);
                    }
                }
            });
        }
        let room = weights.room(DEPTH * PANEL);
        let panels = group_number * group..((group_number + 1) * group).min(panels);
        if crowded {
            let first = segments.start * columns;
            let count = (segments.end * columns).min(rows.columns) - first;
            let block = Crowded { x, weights, first, count, panels: panels.clone() };
            unsafe { block.matmul(level, y, room) };
        }
        for panel in panels {
            let first_column = panel * PANEL;
            let width = PANEL.min(out - first_column);
            with_scratch(if crowded { 0 } else { room }, |room| {
                if crowded {
                    return;
                }
                for_depths(weights.window, weights.into, |k, runs, length, start| {
                    let count = runs * length;
                    let at = (panel * depth + k) * PANEL;
                    let b = weights.read(level, at, count * PANEL, room);
                    for segment in segments.clone() {
                        let (line, first, count) = row_range(segment);
                        let row = line * rows.columns + first;
                        let [line_of_window, offset] = start;
                        let from = rows.start(line, first) + line_of_window * rows.window_stride;
                        unsafe {
                            let tile = Tile {
                                a: x.as_ptr().add(from + offset),
                                a_stride: rows.row_stride,
                                runs,
                                length,
                                run_stride: rows.window_stride,
                                b,
                                b_stride: PANEL,
                                c: y.at(row * out + first_column),
                                c_stride: out,
                                rows: count,
                                columns: width,
                                add: k > 0,
                            };
                            multiply(level, &tile, false);
                        }
                    }
                });
            });
            for segment in segments.clone() {
                let (line, first, count) = row_range(segment);
                let row = line * rows.columns + first;
                let (rows, columns) = ([row, row + count], [first_column, first_column + width]);
                unsafe {
                    let part = Part { y: y.at(row * out), channels: out, rows, columns };
                    epilogue::apply(level, epilogue, part);
                }
            }
        }
    });
}

/// Rows whose elements, so far apart, all share one set of the cache.
const CROWDING: usize = 1024;

/// A block of such rows, of which a part at a time is copied to where they lie better.
struct Crowded<'a> {
    x: &'a [f32],
    weights: &'a Weights,
    first: usize,
    count: usize,
    panels: std::ops::Range<usize>,
}

impl Crowded<'_> {
    unsafe fn matmul(self, level: Level, y: Shared, room: usize) {
        let Weights { into, out, .. } = *self.weights;
        let stride = DEPTH + 16;
        with_scratch(room + self.count * stride, |scratch| {
            let (room, own) = scratch.split_at_mut(room);
            for_depths([1, 1], into, |k, _, length, _| {
                for (r, own) in own.chunks_exact_mut(stride).enumerate() {
                    let from = (self.first + r) * into + k;
                    own[..length].copy_from_slice(&self.x[from..from + length]);
                }
                for panel in self.panels.clone() {
                    let b =
                        self.weights.read(level, (panel * into + k) * PANEL, length * PANEL, room);
                    unsafe {
                        let tile = Tile {
                            a: own.as_ptr(),
                            a_stride: stride,
                            runs: 1,
                            length,
                            run_stride: 0,
                            b,
                            b_stride: PANEL,
                            c: y.at(self.first * out + panel * PANEL),
                            c_stride: out,
                            rows: self.count,
                            columns: PANEL.min(out - panel * PANEL),
                            add: k > 0,
                        };
                        multiply(level, &tile, false);
                    }
                }
            });
        });
    }
}

/// Calls `each` for parts of at most [`DEPTH`] multiply-adds of a window's: the first, stretches
/// and their length, and where they start: a line of the window and elements.
fn for_depths(
    [lines, columns]: [usize; 2],
    into: usize,
    mut each: impl FnMut(usize, usize, usize, [usize; 2]),
) {
    let length = columns * into;
    if length > DEPTH {
        let part = length.div_ceil(length.div_ceil(DEPTH));
        for line in 0..lines {
            for start in (0..length).step_by(part) {
                each(line * length + start, 1, part.min(length - start), [line, start]);
            }
        }
        return;
    }
    let together = (DEPTH / length.max(1)).clamp(1, lines);
    for line in (0..lines).step_by(together) {
        each(line * length, together.min(lines - line), length, [line, 0]);
    }
}

/// Outputs of [`few_outputs`] at a time.
const OUTPUTS: usize = 4;

unsafe fn few_outputs(
    level: Level,
    x: *const f32,
    rows: &Rows,
    weights: &Weights,
    w: *const f32,
    y: *mut f32,
    count: usize,
) {
    let [lines, columns] = weights.window;
    let shape = Few {
        row_stride: rows.row_stride,
        lines,
        length: columns * weights.into,
        line_stride: rows.window_stride,
        out: weights.out,
    };
    for first in (0..weights.out).step_by(OUTPUTS) {
        let w = unsafe { w.add(first * weights.depth()) };
        let y = unsafe { y.add(first) };
        unsafe {
            match weights.out - first {
                1 => sums_along::<1>(level, x, w, y, count, &shape),
                2 => sums_along::<2>(level, x, w, y, count, &shape),
                3 => sums_along::<3>(level, x, w, y, count, &shape),
                _ => sums_along::<OUTPUTS>(level, x, w, y, count, &shape),
            }
        }
    }
}

pub(crate) struct Few {
    pub row_stride: usize,
    pub lines: usize,
    pub length: usize,
    pub line_stride: usize,
    pub out: usize,
}

#[inline(always)]
unsafe fn along<S: Simd, const ROWS: usize, const OUT: usize>(
    s: S,
    x: *const f32,
    w: *const f32,
    y: *mut f32,
    f: &Few,
) {
    unsafe {
        let depth = f.lines * f.length;
        let mut sums = [[s.zero(); OUT]; ROWS];
        for line in 0..f.lines {
            let (x, w) = (x.add(line * f.line_stride), w.add(line * f.length));
            let mut k = 0;
            while k + S::LANES <= f.length {
                let mut b = [s.zero(); OUT];
                for (o, b) in b.iter_mut().enumerate() {
                    *b = s.load(w.add(o * depth + k));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let v = s.load(x.add(r * f.row_stride + k));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = s.fma(v, b, *sum);
                    }
                }
                k += S::LANES;
            }
            if k < f.length {
                let n = f.length - k;
                for (r, sums) in sums.iter_mut().enumerate() {
                    let v = s.load_first(x.add(r * f.row_stride + k), n);
                    for (o, sum) in sums.iter_mut().enumerate() {
                        *sum = s.fma(v, s.load_first(w.add(o * depth + k), n), *sum);
                    }
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (o, &sum) in sums.iter().enumerate() {
                *y.add(r * f.out + o) = s.sum(sum);
            }
        }
    }
}

kernel! {
    /// Rows by a few outputs, lanes sharing the sum.
    pub(crate) fn sums_along[const OUT: usize](
        s: S, x: *const f32, w: *const f32, y: *mut f32, count: usize, f: &Few,
    ) {
        unsafe {
            let mut r = 0;
            while r + 4 <= count && S::LANES == 16 {
                along::<S, 4, OUT>(s, x.add(r * f.row_stride), w, y.add(r * f.out), f);
                r += 4;
            }
            while r + 2 <= count {
                along::<S, 2, OUT>(s, x.add(r * f.row_stride), w, y.add(r * f.out), f);
                r += 2;
            }
            while r < count {
                along::<S, 1, OUT>(s, x.add(r * f.row_stride), w, y.add(r * f.out), f);
                r += 1;
            }
        }
    }
}
