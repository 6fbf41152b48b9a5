//! Sums over what an operand was broadcast along, and division by the greatest element.

use super::parallel::{MEMORY, PIECE, Shared, pieces};
use super::simd::{Level, kernel};

/// Rows that are summed before the sum joins the others.
const BLOCK: usize = 32;

/// Narrower rows are summed one number after another.
const NARROW: usize = 8;

/// Parts in which `[outer, middle, inner]` is summed, and rows of each.
fn parts([outer, middle, inner]: [usize; 3]) -> (usize, usize) {
    let inner = inner.max(1);
    let wanted = 64usize.div_ceil(outer.max(1));
    let least = (PIECE / MEMORY / 2).div_ceil(inner).max(BLOCK);
    let each = middle.div_ceil(wanted).max(least).next_multiple_of(BLOCK);
    (middle.div_ceil(each).max(1), each)
}

/// Scratch that [`sum`] takes.
pub fn sum_scratch_elements(extents: [usize; 3]) -> usize {
    let [outer, _, inner] = extents;
    outer * parts(extents).0 * inner * 2
}

/// `x` `[outer, middle, inner]` summed to `[outer, inner]`.
pub fn sum(level: Level, x: &[f32], extents: [usize; 3], y: &mut [f32], scratch: &mut [f32]) {
    let [outer, middle, inner] = extents;
    assert!(x.len() == outer * middle * inner && y.len() == outer * inner);
    if y.is_empty() {
        return;
    }
    let (count, each) = parts(extents);
    let partial = Shared::new(&mut scratch[..sum_scratch_elements(extents)]);
    pieces(outer * count, x.len() * MEMORY, |piece| unsafe {
        let (o, first) = (piece / count, piece % count * each);
        let rows = each.min(middle.saturating_sub(first));
        let x = &x[(o * middle + first) * inner..][..rows * inner];
        let to = partial.part(piece * 2 * inner, 2 * inner);
        to.fill(0.0);
        let (sums, lost) = to.split_at_mut(inner);
        if inner < NARROW {
            narrow(level, x, inner, sums, lost);
        } else {
            columns(level, x, inner, sums.as_mut_ptr(), lost.as_mut_ptr());
        }
    });
    let rows = scratch.chunks_exact(count * 2 * inner);
    for (y, partial) in y.chunks_exact_mut(inner).zip(rows) {
        for (c, y) in y.iter_mut().enumerate() {
            let parts = partial.chunks_exact(2 * inner);
            let sum: f64 = parts.map(|p| f64::from(p[c]) + f64::from(p[inner + c])).sum();
            *y = sum as f32;
        }
    }
}

/// Sums each of few columns; the sum and what it lost.
unsafe fn narrow(level: Level, x: &[f32], inner: usize, sums: &mut [f32], lost: &mut [f32]) {
    if inner == 1 {
        // f64 over blocks that lanes share.
        let sum: f64 = x.chunks(4096).map(|x| f64::from(unsafe { whole(level, x) })).sum();
        sums[0] = sum as f32;
        lost[0] = (sum - f64::from(sums[0])) as f32;
        return;
    }
    let mut all = [0.0f64; NARROW];
    for row in x.chunks_exact(inner) {
        for (sum, v) in all.iter_mut().zip(row) {
            *sum += f64::from(*v);
        }
    }
    for ((sum, lost), all) in sums.iter_mut().zip(lost).zip(all) {
        *sum = all as f32;
        *lost = (all - f64::from(*sum)) as f32;
    }
}

kernel! {
    fn whole(s: S, x: &[f32]) -> f32 {
        unsafe {
            let mut sums = [s.zero(); 4];
            for part in x.chunks(4 * S::LANES) {
                for (part, sum) in part.chunks(S::LANES).zip(&mut sums) {
                    *sum = s.add(*sum, s.load_first(part.as_ptr(), part.len()));
                }
            }
            s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
        }
    }
}

kernel! {
    /// Blocks of rows, added up with compensation (Knuth's TwoSum).
    fn columns(s: S, x: &[f32], inner: usize, sums: *mut f32, lost: *mut f32) {
        unsafe {
            for block in x.chunks(BLOCK * inner) {
                let (rows, x) = (block.len() / inner, block.as_ptr());
                let mut c = 0;
                while c < inner {
                    let n = (inner - c).min(S::LANES);
                    let mut sum = s.zero();
                    for r in 0..rows {
                        sum = s.add(sum, s.load_first(x.add(r * inner + c), n));
                    }
                    let old = s.load_first(sums.add(c), n);
                    let new = s.add(old, sum);
                    let part = s.sub(new, old);
                    let error = s.add(s.sub(old, s.sub(new, part)), s.sub(sum, part));
                    s.store_first(sums.add(c), new, n);
                    s.store_first(lost.add(c), s.add(s.load_first(lost.add(c), n), error), n);
                    c += n;
                }
            }
        }
    }
}

fn greatest(x: &[f32]) -> f32 {
    x.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `x` divided by its greatest element: maps of a few thousand places.
pub fn normalize_by_max(x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    let greatest = greatest(x);
    for (y, x) in y.iter_mut().zip(x) {
        *y = x / greatest;
    }
}

/// The gradient of [`normalize_by_max`]: those that are the greatest share what flows back to it.
pub fn normalize_by_max_gradient(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == x.len());
    let greatest = greatest(x);
    let total: f64 = x.iter().zip(dy).map(|(&x, &dy)| f64::from(x) * f64::from(dy)).sum();
    let ties = x.iter().filter(|&&x| x == greatest).count();
    let share = (total / f64::from(greatest) / ties as f64) as f32;
    for ((y, &x), dy) in dx.iter_mut().zip(x).zip(dy) {
        *y = (dy - if x == greatest { share } else { 0.0 }) / greatest;
    }
}

kernel! {
    /// Adds numbers to sums in two planes, without loss (Knuth's TwoSum).
    pub(crate) fn two_sums(s: S, x: &[f32], sums: *mut f32, lost: *mut f32) {
        unsafe {
            let mut c = 0;
            while c < x.len() {
                let n = (x.len() - c).min(S::LANES);
                let more = s.load_first(x.as_ptr().add(c), n);
                let old = s.load_first(sums.add(c), n);
                let new = s.add(old, more);
                let part = s.sub(new, old);
                let error = s.add(s.sub(old, s.sub(new, part)), s.sub(more, part));
                s.store_first(sums.add(c), new, n);
                s.store_first(lost.add(c), s.add(s.load_first(lost.add(c), n), error), n);
                c += n;
            }
        }
    }
}
