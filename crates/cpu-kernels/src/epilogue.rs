//! Elementwise work on part of a result while it is in cache: what a matmul, a norm or a copy does
//! before it is done.

use super::activation::{Function, Unary, with_function};
use super::simd::{Level, Simd, kernel};
use super::tile::{Tile, multiply};

/// How an operand's rows meet a result's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcast {
    Same,
    /// One element for all.
    Scalar,
    /// Row `i` meets row `i % rows`: a bias has one.
    Trailing {
        rows: usize,
    },
    /// Row `i` meets row `i / rows`: one for each batch entry of `rows` rows.
    Batch {
        rows: usize,
    },
}

/// One thing that is done to a result of rows of channels.
#[derive(Clone, Copy, Debug)]
pub enum Epilogue<'a> {
    Function(Function),
    Scale(f32),
    Add(&'a [f32], Broadcast),
    Multiply(&'a [f32], Broadcast),
    /// The function's derivative at the operand's elements, times the value.
    Derivative(Function, &'a [f32]),
    /// Adds `hidden` `[rows, rank]` times `up` `[channels, rank]`, or `[rank, channels]` if
    /// `transposed`.
    Lora {
        hidden: &'a [f32],
        up: &'a [f32],
        rank: usize,
        transposed: bool,
    },
}

/// A part of a result: rows and columns of the whole, of which row `rows.start` lies at `y`, its
/// channels first.
#[derive(Clone, Copy)]
pub(crate) struct Part {
    pub y: *mut f32,
    pub channels: usize,
    pub rows: [usize; 2],
    pub columns: [usize; 2],
}

/// # Safety
/// The part must be there, and the operands must be as large as their broadcasts say.
pub(crate) unsafe fn apply(level: Level, epilogue: &[Epilogue<'_>], part: Part) {
    for entry in epilogue {
        match *entry {
            Epilogue::Lora { hidden, up, rank, transposed } => {
                lora(level, hidden, up, rank, transposed, &part);
            }
            entry => unsafe { elementwise(level, &entry, &part) },
        }
    }
}

/// Elements of the outer matrix that are turned round at a time.
const TURNED: usize = 4096;

fn lora(level: Level, hidden: &[f32], up: &[f32], rank: usize, transposed: bool, part: &Part) {
    const LANES: usize = 16;
    let mut own = [0.0; TURNED];
    let columns = (TURNED / rank.max(1) / LANES * LANES).clamp(LANES, 32);
    let ranks = (TURNED / columns).min(rank.max(1));
    for first in (part.columns[0]..part.columns[1]).step_by(columns) {
        let width = columns.min(part.columns[1] - first);
        for start in (0..rank).step_by(ranks) {
            let count = ranks.min(rank - start);
            for (r, row) in own.chunks_exact_mut(columns).enumerate().take(count) {
                for (c, v) in row[..width].iter_mut().enumerate() {
                    let (column, rank_at) = (first + c, start + r);
                    let at = if transposed {
                        rank_at * part.channels + column
                    } else {
                        column * rank + rank_at
                    };
                    *v = up[at];
                }
            }
            let tile = Tile {
                a: hidden[part.rows[0] * rank + start..].as_ptr(),
                a_stride: rank,
                runs: 1,
                length: count,
                run_stride: 0,
                b: own.as_ptr(),
                b_stride: columns,
                c: unsafe { part.y.add(first) },
                c_stride: part.channels,
                rows: part.rows[1] - part.rows[0],
                columns: width,
                add: true,
            };
            unsafe { multiply(level, &tile, false) };
        }
    }
}

/// What a entry does to a vector, given the operand's.
trait Binary: Copy {
    unsafe fn of<S: Simd>(self, s: S, y: S::V, t: S::V) -> S::V;
}

#[derive(Clone, Copy)]
struct Add;
#[derive(Clone, Copy)]
struct Multiply;
#[derive(Clone, Copy)]
struct Derivative<U>(U);
#[derive(Clone, Copy)]
struct Apply<U>(U);

impl Binary for Add {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, s: S, y: S::V, t: S::V) -> S::V {
        unsafe { s.add(y, t) }
    }
}

impl Binary for Multiply {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, s: S, y: S::V, t: S::V) -> S::V {
        unsafe { s.mul(y, t) }
    }
}

impl<U: Unary> Binary for Derivative<U> {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, s: S, y: S::V, t: S::V) -> S::V {
        unsafe { s.mul(y, self.0.derivative(s, t)) }
    }
}

impl<U: Unary> Binary for Apply<U> {
    #[inline(always)]
    unsafe fn of<S: Simd>(self, s: S, y: S::V, _t: S::V) -> S::V {
        unsafe { self.0.at(s, y) }
    }
}

/// All rows of the part, each with the operand's row that it meets; without one if `operand` is
/// null.
#[inline(always)]
unsafe fn rows<S: Simd, B: Binary>(
    s: S,
    part: &Part,
    operand: *const f32,
    broadcast: Broadcast,
    b: B,
) {
    unsafe {
        let mut width = part.columns[1] - part.columns[0];
        let mut end = part.rows[1];
        if width == part.channels && matches!(broadcast, Broadcast::Scalar) {
            // Rows follow each other.
            width *= end - part.rows[0];
            end = end.min(part.rows[0] + 1);
        }
        let mut same = s.zero();
        let scalar = matches!(broadcast, Broadcast::Scalar);
        if scalar && !operand.is_null() {
            same = s.splat(*operand);
        }
        // The operand's row, and how many more rows meet it, or are there to meet.
        let (mut row, mut left) = match broadcast {
            Broadcast::Same | Broadcast::Scalar => (part.rows[0], usize::MAX),
            Broadcast::Trailing { rows } => (part.rows[0] % rows, rows - part.rows[0] % rows),
            Broadcast::Batch { rows } => (part.rows[0] / rows, rows - part.rows[0] % rows),
        };
        for r in part.rows[0]..end {
            let y = part.y.add((r - part.rows[0]) * part.channels + part.columns[0]);
            if scalar {
                let mut c = 0;
                while c + S::LANES <= width {
                    s.store(y.add(c), b.of(s, s.load(y.add(c)), same));
                    c += S::LANES;
                }
                if c < width {
                    let n = width - c;
                    s.store_first(y.add(c), b.of(s, s.load_first(y.add(c), n), same), n);
                }
                continue;
            }
            let t = operand.add(row * part.channels + part.columns[0]);
            left -= 1;
            match broadcast {
                Broadcast::Trailing { rows } if left == 0 => (row, left) = (0, rows),
                Broadcast::Batch { .. } if left > 0 => {}
                Broadcast::Batch { rows } => (row, left) = (row + 1, rows),
                _ => row += 1,
            }
            let mut c = 0;
            while c + S::LANES <= width {
                s.store(y.add(c), b.of(s, s.load(y.add(c)), s.load(t.add(c))));
                c += S::LANES;
            }
            if c < width {
                let n = width - c;
                let v = b.of(s, s.load_first(y.add(c), n), s.load_first(t.add(c), n));
                s.store_first(y.add(c), v, n);
            }
        }
    }
}

kernel! {
    fn elementwise(s: S, entry: &Epilogue<'_>, part: &Part) {
        unsafe {
            match *entry {
                Epilogue::Add(t, broadcast) => rows(s, part, t.as_ptr(), broadcast, Add),
                Epilogue::Multiply(t, broadcast) => rows(s, part, t.as_ptr(), broadcast, Multiply),
                Epilogue::Scale(f) => rows(s, part, &raw const f, Broadcast::Scalar, Multiply),
                Epilogue::Function(function) => with_function!(function, f => {
                    rows(s, part, std::ptr::null(), Broadcast::Scalar, Apply(f))
                }),
                Epilogue::Derivative(function, t) => with_function!(function, f => {
                    rows(s, part, t.as_ptr(), Broadcast::Same, Derivative(f))
                }),
                Epilogue::Lora { .. } => {}
            }
        }
    }
}

/// Panics where an operand is smaller than its entry reads of a result of `rows` of `channels`.
pub(crate) fn check(epilogue: &[Epilogue<'_>], rows: usize, channels: usize) {
    for entry in epilogue {
        match *entry {
            Epilogue::Function(_) | Epilogue::Scale(_) => {}
            Epilogue::Add(t, broadcast) | Epilogue::Multiply(t, broadcast) => {
                let needed = match broadcast {
                    Broadcast::Same => rows * channels,
                    Broadcast::Scalar => 1,
                    Broadcast::Trailing { rows: of } => of.min(rows) * channels,
                    Broadcast::Batch { rows: of } => rows.div_ceil(of) * channels,
                };
                assert!(t.len() >= needed, "operand of {} elements, {needed} needed", t.len());
            }
            Epilogue::Derivative(_, t) => assert!(t.len() >= rows * channels),
            Epilogue::Lora { hidden, up, rank, .. } => {
                assert!(hidden.len() >= rows * rank && up.len() >= channels * rank);
            }
        }
    }
}
