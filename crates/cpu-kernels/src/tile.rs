//! The register tile that all matmuls are made of: a few rows by a few vectors, summed over all of
//! k in one go.
//!
//! Every element of the result is one chain of multiply-adds in the order of k, whatever the tile:
//! how work is cut up changes no bit of it.

use super::simd::{Level, kernel};

/// A matmul of `rows` by `columns`: c = a b, or c += a b.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// Element (r, k) lies at `r * a_stride + k`, or (see [`multiply`]) at `k * a_stride + r`.
    /// There are `runs` stretches of `length` k, `run_stride` from one to the next.
    pub a: *const f32,
    pub a_stride: usize,
    pub runs: usize,
    pub length: usize,
    pub run_stride: usize,
    /// Row k at `k * b_stride`: whole vectors can be read.
    pub b: *const f32,
    pub b_stride: usize,
    pub c: *mut f32,
    pub c_stride: usize,
    pub rows: usize,
    pub columns: usize,
    pub add: bool,
}

/// Rows of b that are asked for ahead: the processor itself stops at the end of a page, of 32 of
/// them.
const AHEAD: usize = 24;

/// Most rows of a tile.
const MOST: usize = 13;

type Function = unsafe fn(Level, &Tile);

kernel! {
    fn tile[const ROWS: usize, const VECTORS: usize, const ACROSS: bool](s: S, t: &Tile) {
        // Never called, and not worth compiling.
        if ROWS > rows_held(S::LANES, VECTORS) {
            return;
        }
        unsafe {
            let mut sums = [[s.zero(); VECTORS]; ROWS];
            let mut b = t.b;
            // Five rows to a pointer: their addresses are its, and 1, 2, 3 and 4 strides on.
            let stride = t.a_stride;
            for run in 0..t.runs {
                let from = t.a.add(run * t.run_stride);
                let mut p = [from; MOST.div_ceil(5)];
                for (group, p) in p.iter_mut().enumerate() {
                    *p = from.add(if ACROSS { 0 } else { group * 5 * stride });
                }
                for _ in 0..t.length {
                    let mut row = [s.zero(); VECTORS];
                    for (j, v) in row.iter_mut().enumerate() {
                        *v = s.load(b.add(j * S::LANES));
                    }
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let at = if ACROSS { p[0].add(r) } else { p[r / 5].add(r % 5 * stride) };
                        let x = s.splat(*at);
                        for (sum, v) in sums.iter_mut().zip(row) {
                            *sum = s.fma(x, v, *sum);
                        }
                    }
                    for j in 0..(VECTORS * S::LANES).div_ceil(16) {
                        s.prefetch(b.wrapping_add(AHEAD * t.b_stride + j * 16));
                    }
                    b = b.add(t.b_stride);
                    for p in &mut p {
                        *p = p.add(if ACROSS { stride } else { 1 });
                    }
                }
            }
            let whole = t.columns >= VECTORS * S::LANES;
            for (r, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    let at = t.c.add(r * t.c_stride + j * S::LANES);
                    if whole {
                        s.store(at, if t.add { s.add(s.load(at), sum) } else { sum });
                    } else {
                        let n = t.columns.saturating_sub(j * S::LANES).min(S::LANES);
                        let sum = if t.add { s.add(s.load_first(at, n), sum) } else { sum };
                        s.store_first(at, sum, n);
                    }
                }
            }
        }
    }
}

macro_rules! of_rows {
    ($vectors:literal, $across:literal; $($rows:literal)*) => {
        [$(tile::<$rows, $vectors, $across>),*]
    };
}

static ONE: [Function; MOST] = of_rows!(1, false; 1 2 3 4 5 6 7 8 9 10 11 12 13);
static TWO: [Function; MOST] = of_rows!(2, false; 1 2 3 4 5 6 7 8 9 10 11 12 13);
static THREE: [Function; 9] = of_rows!(3, false; 1 2 3 4 5 6 7 8 9);
static ONE_ACROSS: [Function; MOST] = of_rows!(1, true; 1 2 3 4 5 6 7 8 9 10 11 12 13);
static TWO_ACROSS: [Function; MOST] = of_rows!(2, true; 1 2 3 4 5 6 7 8 9 10 11 12 13);
static THREE_ACROSS: [Function; 9] = of_rows!(3, true; 1 2 3 4 5 6 7 8 9);

/// Most rows of a tile of `vectors` of `lanes`, as many as registers hold.
const fn rows_held(lanes: usize, vectors: usize) -> usize {
    match (lanes, vectors) {
        // 32 registers.
        (16 | 4, 3) => 9,
        (16 | 4, _) => MOST,
        // 16 registers.
        (_, 1) => 12,
        (_, 2) => 6,
        _ => 4,
    }
}

/// Makes the whole matmul in tiles; `across` tells how `a` lies.
///
/// # Safety
/// All that the tile names must be there, and b's rows must be so many whole vectors as hold
/// `columns`.
pub(crate) unsafe fn multiply(level: Level, whole: &Tile, across: bool) {
    let lanes = level.lanes();
    let mut column = 0;
    while column < whole.columns {
        let left = (whole.columns - column).div_ceil(lanes);
        let wide = matches!(lanes, 16 | 4);
        let vectors = if left == 3 && wide { 3 } else { left.min(2) };
        let columns = (vectors * lanes).min(whole.columns - column);
        let most = rows_held(lanes, vectors);
        let each = whole.rows.div_ceil(whole.rows.div_ceil(most).max(1)).max(1);
        let mut row = 0;
        while row < whole.rows {
            let rows = each.min(whole.rows - row);
            let table: &[Function] = match (vectors, across) {
                (1, false) => &ONE,
                (2, false) => &TWO,
                (_, false) => &THREE,
                (1, true) => &ONE_ACROSS,
                (2, true) => &TWO_ACROSS,
                (_, true) => &THREE_ACROSS,
            };
            unsafe {
                let part = Tile {
                    a: whole.a.add(if across { row } else { row * whole.a_stride }),
                    b: whole.b.add(column),
                    c: whole.c.add(row * whole.c_stride + column),
                    rows,
                    columns,
                    ..*whole
                };
                table[rows - 1](level, &part);
            }
            row += rows;
        }
        column += columns;
    }
}
