//! Matmuls with a matrix of few outputs, which may be any tensor, and the gradient of such a
//! matrix.

use super::epilogue::{self, Epilogue, Part};
use super::matmul::{Few, sums_along};
use super::parallel::{MEMORY, PIECE, Shared, pieces, with_scratch};
use super::simd::Level;
use super::tile::{Tile, multiply};

/// How the matrix lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies {
    /// `[out, in]`
    Rows,
    /// `[in, out]`
    Columns,
}

/// Scratch that [`lora_down`] takes.
pub fn scratch_elements(lies: Lies, into: usize, out: usize) -> usize {
    if lies == Lies::Rows { 0 } else { into * out }
}

/// `y[.., n] = sum_k x[.., k] w[n, k]`, or `w[k, n]`; then the epilogue.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn lora_down(
    level: Level,
    x: &[f32],
    w: &[f32],
    lies: Lies,
    [into, out]: [usize; 2],
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
    scratch: &mut [f32],
) {
    let rows = y.len() / out.max(1);
    assert!(w.len() == into * out && x.len() == rows * into && y.len() == rows * out);
    let mut w = w;
    if lies == Lies::Columns {
        for (k, row) in w.chunks_exact(out).enumerate() {
            for (n, value) in row.iter().enumerate() {
                scratch[n * into + k] = *value;
            }
        }
        w = &scratch[..into * out];
    }
    let shape = Few { row_stride: into, lines: 1, length: into, line_stride: 0, out };
    let each = |segment: usize| (1, segment, segment * into);
    along_inputs(level, x, w, [rows, rows], &shape, each, epilogue, y);
}

/// Scratch that [`lora_down_conv2d`] takes.
pub fn conv2d_scratch_elements(into: usize, out: usize, window: [usize; 2]) -> usize {
    into * out * window[0] * window[1]
}

/// "Valid" convolution of `x` `[batch, height, width, in]` with `w` `[out, in, kh, kw]`; then the
/// epilogue.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn lora_down_conv2d(
    level: Level,
    x: &[f32],
    [batch, height, width]: [usize; 3],
    w: &[f32],
    [into, out]: [usize; 2],
    [kh, kw]: [usize; 2],
    stride: usize,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
    scratch: &mut [f32],
) {
    assert!(stride > 0 && kh <= height && kw <= width && x.len() == batch * height * width * into);
    let (lines, columns) = ((height - kh) / stride + 1, (width - kw) / stride + 1);
    let rows = batch * lines * columns;
    assert!(w.len() == into * out * kh * kw && y.len() == rows * out);
    let turned = &mut scratch[..w.len()];
    for (at, value) in turned.iter_mut().enumerate() {
        let (o, tap, i) = (at / (kh * kw * into), at / into % (kh * kw), at % into);
        *value = w[(o * into + i) * kh * kw + tap];
    }
    let shape = Few {
        row_stride: stride * into,
        lines: kh,
        length: kw * into,
        line_stride: width * into,
        out,
    };
    let each = |line: usize| {
        let (b, y) = (line / lines, line % lines);
        (columns, line * columns, (b * height + y * stride) * width * into)
    };
    along_inputs(level, x, turned, [rows, batch * lines], &shape, each, epilogue, y);
}

/// Segments of rows, of each of which `place` tells how many, the first, and where its input
/// starts.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
fn along_inputs(
    level: Level,
    x: &[f32],
    w: &[f32],
    [rows, segments]: [usize; 2],
    shape: &Few,
    place: impl Fn(usize) -> (usize, usize, usize) + Sync,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    let out = shape.out;
    epilogue::check(epilogue, rows, out);
    if rows == 0 || out == 0 {
        return;
    }
    let depth = shape.lines * shape.length;
    let work = rows * depth * (2 * out.next_multiple_of(4) + MEMORY);
    let together = (PIECE * segments).div_ceil(work.max(1)).max(segments.div_ceil(64)).max(1);
    let y = Shared::new(y);
    pieces(segments.div_ceil(together), work, |piece| {
        let segments = piece * together..((piece + 1) * together).min(segments);
        // Of a matmul, rows that follow each other make one.
        let single = segments.len() > 1 && place(segments.start).0 == 1;
        let run = |count: usize, first: usize, from: usize| unsafe {
            let x = x.as_ptr().add(from);
            for n in (0..out).step_by(4) {
                let (w, y) = (w.as_ptr().add(n * depth), y.at(first * out + n));
                match out - n {
                    1 => sums_along::<1>(level, x, w, y, count, shape),
                    2 => sums_along::<2>(level, x, w, y, count, shape),
                    3 => sums_along::<3>(level, x, w, y, count, shape),
                    _ => sums_along::<4>(level, x, w, y, count, shape),
                }
            }
            let (rows, columns) = ([first, first + count], [0, out]);
            let part = Part { y: y.at(first * out), channels: out, rows, columns };
            epilogue::apply(level, epilogue, part);
        };
        if single {
            let (_, first, from) = place(segments.start);
            return run(segments.len(), first, from);
        }
        for segment in segments {
            let (count, first, from) = place(segment);
            run(count, first, from);
        }
    });
}

/// Rows of a block of a weight's gradient, and blocks.
fn blocks(rows: usize, elements: usize) -> (usize, usize) {
    let least = (4 * PIECE).div_ceil(2 * elements.max(1)).max(64);
    let length = least.max(rows.div_ceil(64));
    (length, rows.div_ceil(length).max(1))
}

/// Scratch that [`weight_gradient`] takes.
pub fn weight_gradient_scratch_elements(rows: usize, out: usize, into: usize) -> usize {
    blocks(rows, out * into).1 * out * into
}

/// `dw[n, k] = sum_r dy[r, n] x[r, k]` over all rows: blocks of rows, then the blocks in their
/// order.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn weight_gradient(
    level: Level,
    x: &[f32],
    dy: &[f32],
    [out, into]: [usize; 2],
    dw: &mut [f32],
    scratch: &mut [f32],
) {
    let rows = dy.len() / out.max(1);
    assert!(dy.len() == rows * out && x.len() == rows * into && dw.len() == out * into);
    if dw.is_empty() {
        return;
    }
    // Vectors run along the wider side.
    let swapped = out > into;
    let (few, wide, a, b) = if swapped { (into, out, x, dy) } else { (out, into, dy, x) };
    if wide < LANES {
        return tiny_gradient(x, dy, [out, into], dw);
    }
    let (length, count) = blocks(rows, few * wide);
    let partial = Shared::new(&mut scratch[..count * few * wide]);
    let columns = wide.min(256);
    let groups = wide.div_ceil(columns);
    pieces(count * groups, 2 * rows * few * wide, |piece| {
        let (block, start) = (piece / groups, piece % groups * columns);
        let width = columns.min(wide - start);
        let first = block * length;
        let mut rows = length.min(rows - first);
        let tile = Tile {
            a: a[first * few..].as_ptr(),
            a_stride: few,
            runs: 1,
            length: rows,
            run_stride: 0,
            b: unsafe { b.as_ptr().add(first * wide + start) },
            b_stride: wide,
            c: unsafe { partial.at(block * few * wide + start) },
            c_stride: wide,
            rows: few,
            columns: width,
            add: false,
        };
        // Whole vectors of the last row may not lie in the tensor.
        let (room, last) = (width.next_multiple_of(LANES), (first + rows) * wide == b.len());
        let apart = last && start + room > wide;
        rows -= usize::from(apart);
        unsafe {
            if rows > 0 {
                multiply(level, &Tile { length: rows, ..tile }, true);
            }
            if apart {
                with_scratch(room, |own| {
                    own.fill(0.0);
                    own[..width].copy_from_slice(&b[(first + rows) * wide + start..][..width]);
                    let a = tile.a.add(rows * few);
                    let add = rows > 0;
                    multiply(level, &Tile { a, length: 1, b: own.as_ptr(), add, ..tile }, true);
                });
            }
        }
    });
    let scratch = &*scratch;
    let each = 4096;
    let (elements, dw) = (out * into, Shared::new(dw));
    pieces(elements.div_ceil(each), elements * count * MEMORY, |i| {
        for at in i * each..((i + 1) * each).min(elements) {
            let from = if swapped { at % into * out + at / into } else { at };
            let sum: f64 = (0..count).map(|b| f64::from(scratch[b * elements + from])).sum();
            unsafe { *dw.at(at) = sum as f32 };
        }
    });
}

/// Of a vector, at most.
const LANES: usize = 16;

/// [`weight_gradient`] of a matrix narrower than a vector on both sides.
fn tiny_gradient(x: &[f32], dy: &[f32], [out, into]: [usize; 2], dw: &mut [f32]) {
    for (at, dw) in dw.iter_mut().enumerate() {
        let (n, k) = (at / into, at % into);
        let rows = dy.chunks_exact(out).zip(x.chunks_exact(into));
        *dw = rows.map(|(dy, x)| f64::from(dy[n]) * f64::from(x[k])).sum::<f64>() as f32;
    }
}

/// Rows that [`outer_sums`] sums in f32 before it adds them up with compensation.
const BLOCK: usize = 64;
/// Rows and columns of the sums that a piece makes.
const SQUARE: usize = 96;

/// Adds `x^T x` over all rows of `x` `[.., n]` to `sums` `[2, n, n]`: each sum is the sum of the
/// two planes, which together keep about twice the digits of one f32 (Knuth's TwoSum between blocks
/// of rows). Elements whose column is beyond their row may be anything.
pub fn outer_sums(level: Level, sums: &mut [f32], x: &[f32], n: usize) {
    assert!(sums.len() == 2 * n * n && n > 0 && x.len().is_multiple_of(n));
    let rows = x.len() / n;
    let squares = n.div_ceil(SQUARE);
    let (count, target) = (squares * (squares + 1) / 2, Shared::new(sums));
    pieces(count, rows * n * n, |piece| {
        // Squares of the lower triangle, line by line.
        let mut line = ((8 * piece + 1).isqrt() - 1) / 2;
        while line * (line + 1) / 2 > piece {
            line -= 1;
        }
        let column = piece - line * (line + 1) / 2;
        let (i, j) = (line * SQUARE, column * SQUARE);
        let (height, width) = (SQUARE.min(n - i), SQUARE.min(n - j));
        with_scratch(SQUARE * SQUARE + BLOCK * SQUARE, |scratch| {
            let (tile, near) = scratch.split_at_mut(SQUARE * SQUARE);
            for first in (0..rows).step_by(BLOCK) {
                let length = BLOCK.min(rows - first);
                for (r, near) in near.chunks_exact_mut(SQUARE).enumerate().take(length) {
                    near[..width].copy_from_slice(&x[(first + r) * n + j..][..width]);
                    near[width..].fill(0.0);
                }
                let whole = Tile {
                    a: x[first * n + i..].as_ptr(),
                    a_stride: n,
                    runs: 1,
                    length,
                    run_stride: 0,
                    b: near.as_ptr(),
                    b_stride: SQUARE,
                    c: tile.as_mut_ptr(),
                    c_stride: SQUARE,
                    rows: height,
                    columns: width,
                    add: false,
                };
                unsafe {
                    multiply(level, &whole, true);
                    for r in 0..height {
                        let at = (i + r) * n + j;
                        let (sums, lost) = (target.at(at), target.at(n * n + at));
                        super::reduce::two_sums(level, &tile[r * SQUARE..][..width], sums, lost);
                    }
                }
            }
        });
    });
}
