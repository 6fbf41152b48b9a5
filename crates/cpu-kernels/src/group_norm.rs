//! Group normalisation of `[batch, rows, channels]`: statistics of every group, then their use,
//! forward and backward.
//!
//! Of every few rows, each channel's mean and sum of squares about it are made in two looks at
//! numbers that are near; these are put together pairwise (Chan et al., "Updating formulae", 1979),
//! the last of them in f64.

use super::elementwise::{Padding, by_runs};
use super::epilogue::Epilogue;
use super::parallel::{MEMORY, Shared, pieces};
use super::simd::{Level, kernel};

/// The extents that all operations of a norm share.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm {
    pub batch: usize,
    /// Of a batch entry.
    pub rows: usize,
    pub channels: usize,
    pub groups: usize,
}

/// Rows that are looked at twice.
const ROWS: usize = 32;

impl GroupNorm {
    fn elements(&self) -> usize {
        self.batch * self.rows * self.channels
    }

    /// Rows of a piece, and pieces of a batch entry.
    fn pieces(&self) -> (usize, usize) {
        let least = (1usize << 17).div_ceil(self.channels.max(1));
        let each = least.max(self.rows.div_ceil(64)).next_multiple_of(ROWS);
        (each, self.rows.div_ceil(each).max(1))
    }

    fn check(&self, x: usize, statistics: usize) {
        assert!(self.groups > 0 && self.channels.is_multiple_of(self.groups), "{self:?}");
        assert!(x == self.elements() && statistics == self.batch * self.groups * 2, "{self:?}");
    }

    /// Scratch that [`statistics`] and [`means`] take.
    pub fn scratch_elements(&self) -> usize {
        self.batch * self.pieces().1 * self.channels * 3
    }
}

/// Mean and 1/sqrt(variance + `epsilon`) of each batch entry's groups: `[batch, groups, 2]`.
pub fn statistics(
    level: Level,
    norm: &GroupNorm,
    x: &[f32],
    epsilon: f32,
    y: &mut [f32],
    scratch: &mut [f32],
) {
    norm.check(x.len(), y.len());
    let (channels, (each, parts)) = (norm.channels, norm.pieces());
    let target = Shared::new(&mut scratch[..norm.scratch_elements()]);
    pieces(norm.batch * parts, norm.elements() * MEMORY, |piece| unsafe {
        let (b, first) = (piece / parts, piece % parts * each);
        let rows = each.min(norm.rows - first);
        let from = x[(b * norm.rows + first) * channels..][..rows * channels].as_ptr();
        let part = target.part(piece * 2 * channels, 2 * channels);
        let (mean, squares) = part.split_at_mut(channels);
        moments(level, from, rows, channels, mean.as_mut_ptr(), squares.as_mut_ptr());
    });
    let width = channels / norm.groups;
    for (slot, y) in y.chunks_exact_mut(2).enumerate() {
        let (b, g) = (slot / norm.groups, slot % norm.groups);
        let (mut count, mut mean, mut squares) = (0.0f64, 0.0f64, 0.0f64);
        for part in 0..parts {
            let rows = each.min(norm.rows - part * each) as f64;
            let at = (b * parts + part) * 2 * channels + g * width;
            for c in at..at + width {
                let (m, s) = (f64::from(scratch[c]), f64::from(scratch[c + channels]));
                let (all, delta) = (count + rows, m - mean);
                mean += delta * rows / all;
                squares += s + delta * delta * count * rows / all;
                count = all;
            }
        }
        y[0] = mean as f32;
        y[1] = (1.0 / (squares / count + f64::from(epsilon)).sqrt()) as f32;
    }
}

kernel! {
    /// Each channel's mean, and the sum of the squares about it.
    fn moments(
        s: S, x: *const f32, rows: usize, channels: usize, mean: *mut f32, squares: *mut f32,
    ) {
        unsafe {
            let mut first = 0;
            while first < rows {
                let count = ROWS.min(rows - first);
                let x = x.add(first * channels);
                let all = (first + count) as f32;
                let less = s.splat(1.0 / count as f32);
                let share = s.splat(count as f32 / all);
                let both = s.splat(first as f32 * count as f32 / all);
                let mut c = 0;
                while c < channels {
                    let n = (channels - c).min(S::LANES);
                    let x = x.add(c);
                    let (mut sum, mut more) = (s.zero(), s.zero());
                    for r in 0..count / 2 {
                        sum = s.add(sum, s.load_first(x.add(2 * r * channels), n));
                        more = s.add(more, s.load_first(x.add((2 * r + 1) * channels), n));
                    }
                    if count % 2 == 1 {
                        sum = s.add(sum, s.load_first(x.add((count - 1) * channels), n));
                    }
                    let m = s.mul(s.add(sum, more), less);
                    let (mut sum, mut more) = (s.zero(), s.zero());
                    for r in 0..count / 2 {
                        let v = s.sub(s.load_first(x.add(2 * r * channels), n), m);
                        sum = s.fma(v, v, sum);
                        let v = s.sub(s.load_first(x.add((2 * r + 1) * channels), n), m);
                        more = s.fma(v, v, more);
                    }
                    if count % 2 == 1 {
                        let v = s.sub(s.load_first(x.add((count - 1) * channels), n), m);
                        sum = s.fma(v, v, sum);
                    }
                    let sum = s.add(sum, more);
                    let (mean, squares) = (mean.add(c), squares.add(c));
                    if first == 0 {
                        s.store_first(mean, m, n);
                        s.store_first(squares, sum, n);
                    } else {
                        let old = s.load_first(mean, n);
                        let delta = s.sub(m, old);
                        s.store_first(mean, s.fma(delta, share, old), n);
                        let sum = s.add(s.load_first(squares, n), sum);
                        s.store_first(squares, s.fma(s.mul(delta, delta), both, sum), n);
                    }
                    c += n;
                }
                first += count;
            }
        }
    }
}

/// Most channels that a thread keeps the factors of at a time.
const CHANNELS: usize = 512;

/// `(x - mean) * rstd * weight + bias`, then the epilogue, with zeros around if there is `padding`.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn group_norm(
    level: Level,
    norm: &GroupNorm,
    x: &[f32],
    statistics: &[f32],
    weight: &[f32],
    bias: &[f32],
    padding: Option<&Padding>,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    norm.check(x.len(), statistics.len());
    let channels = norm.channels;
    assert!(weight.len() == channels && bias.len() == channels);
    let rows = norm.batch * norm.rows;
    let width = channels / norm.groups;
    by_runs(level, rows, channels, padding, 4, epilogue, y, |first, y| {
        each_entry(norm, first, y, |b, at, y| {
            for c0 in (0..channels).step_by(CHANNELS) {
                let c1 = (c0 + CHANNELS).min(channels);
                let [mut mean, mut factor] = [[0.0; CHANNELS]; 2];
                for c in c0..c1 {
                    let slot = (b * norm.groups + c / width) * 2;
                    mean[c - c0] = statistics[slot];
                    factor[c - c0] = statistics[slot + 1] * weight[c];
                }
                let x = &x[at * channels..][..y.len()];
                unsafe { forward(level, x, &mean, &factor, bias, channels, [c0, c1], y) };
            }
        });
    });
}

/// Calls `each` with a batch entry, the first of some of its rows, and their part of `y`.
fn each_entry(
    norm: &GroupNorm,
    first: usize,
    y: &mut [f32],
    mut each: impl FnMut(usize, usize, &mut [f32]),
) {
    let (mut at, mut rest) = (first, y);
    while !rest.is_empty() {
        let b = at / norm.rows;
        let count = ((b + 1) * norm.rows - at).min(rest.len() / norm.channels);
        let (own, more) = rest.split_at_mut(count * norm.channels);
        each(b, at, own);
        (at, rest) = (at + count, more);
    }
}

kernel! {
    fn forward(
        s: S,
        x: &[f32],
        mean: &[f32; CHANNELS],
        factor: &[f32; CHANNELS],
        bias: &[f32],
        channels: usize,
        part: [usize; 2],
        y: &mut [f32],
    ) {
        unsafe {
            let [c0, c1] = part;
            let (mean, factor, bias) = (mean.as_ptr(), factor.as_ptr(), bias.as_ptr().add(c0));
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                let (x, y) = (x.as_ptr().add(c0), y.as_mut_ptr().add(c0));
                let mut c = 0;
                while c < c1 - c0 {
                    let n = (c1 - c0 - c).min(S::LANES);
                    let v = s.sub(s.load_first(x.add(c), n), s.load_first(mean.add(c), n));
                    let v = s.fma(v, s.load_first(factor.add(c), n), s.load_first(bias.add(c), n));
                    s.store_first(y.add(c), v, n);
                    c += n;
                }
            }
        }
    }
}

/// With g = dy * weight and n = (x - mean) * rstd: mean(g) and mean(g n) of every group,
/// `[batch, groups, 2]`.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn means(
    level: Level,
    norm: &GroupNorm,
    x: &[f32],
    statistics: &[f32],
    weight: &[f32],
    dy: &[f32],
    y: &mut [f32],
    scratch: &mut [f32],
) {
    norm.check(x.len(), y.len());
    let (channels, (each, parts)) = (norm.channels, norm.pieces());
    assert!(dy.len() == x.len() && statistics.len() == y.len() && weight.len() == channels);
    let width = channels / norm.groups;
    let target = Shared::new(&mut scratch[..norm.scratch_elements()]);
    pieces(norm.batch * parts, 2 * norm.elements() * MEMORY, |piece| unsafe {
        let (b, first) = (piece / parts, piece % parts * each);
        let rows = each.min(norm.rows - first);
        let at = (b * norm.rows + first) * channels;
        let part = target.part(piece * 3 * channels, 3 * channels);
        let (x, dy) = (&x[at..][..rows * channels], &dy[at..][..rows * channels]);
        for g in 0..norm.groups {
            let mean = statistics[(b * norm.groups + g) * 2];
            part[2 * channels + g * width..][..width].fill(mean);
        }
        let (sums, mean) = part.split_at_mut(2 * channels);
        sums.fill(0.0);
        matmuls(level, x, dy, channels, mean.as_ptr(), sums.as_mut_ptr());
    });
    let count = (norm.rows * width) as f64;
    for (slot, y) in y.chunks_exact_mut(2).enumerate() {
        let (b, g) = (slot / norm.groups, slot % norm.groups);
        let rstd = f64::from(statistics[slot * 2 + 1]);
        let mut sums = [0.0f64; 2];
        for part in 0..parts {
            let at = (b * parts + part) * 3 * channels;
            for c in g * width..(g + 1) * width {
                let w = f64::from(weight[c]);
                sums[0] += w * f64::from(scratch[at + c]);
                sums[1] += w * rstd * f64::from(scratch[at + channels + c]);
            }
        }
        y[0] = (sums[0] / count) as f32;
        y[1] = (sums[1] / count) as f32;
    }
}

kernel! {
    /// Adds each channel's sum of dy, and that of dy (x - mean).
    fn matmuls(s: S, x: &[f32], dy: &[f32], channels: usize, mean: *const f32, sums: *mut f32) {
        unsafe {
            let blocks = x.chunks(ROWS * channels).zip(dy.chunks(ROWS * channels));
            for (x, dy) in blocks {
                let rows = x.len() / channels;
                let (x, dy) = (x.as_ptr(), dy.as_ptr());
                let mut c = 0;
                while c < channels {
                    let n = (channels - c).min(S::LANES);
                    let mean = s.load_first(mean.add(c), n);
                    let (mut of_dy, mut of_product) = (s.zero(), s.zero());
                    for r in 0..rows {
                        let dy = s.load_first(dy.add(r * channels + c), n);
                        let v = s.sub(s.load_first(x.add(r * channels + c), n), mean);
                        of_dy = s.add(of_dy, dy);
                        of_product = s.fma(dy, v, of_product);
                    }
                    for (at, v) in [(sums.add(c), of_dy), (sums.add(channels + c), of_product)] {
                        s.store_first(at, s.add(s.load_first(at, n), v), n);
                    }
                    c += n;
                }
            }
        }
    }
}

/// rstd * (g - mean(g) - n mean(g n)), of what [`means`] made; then the epilogue, with zeros around
/// if there is `padding`.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn gradient(
    level: Level,
    norm: &GroupNorm,
    x: &[f32],
    statistics: &[f32],
    weight: &[f32],
    dy: &[f32],
    means: &[f32],
    padding: Option<&Padding>,
    epilogue: &[Epilogue<'_>],
    dx: &mut [f32],
) {
    norm.check(x.len(), statistics.len());
    let channels = norm.channels;
    assert!(weight.len() == channels && dy.len() == x.len() && means.len() == statistics.len());
    let width = channels / norm.groups;
    let rows = norm.batch * norm.rows;
    by_runs(level, rows, channels, padding, 8, epilogue, dx, |first, dx| {
        each_entry(norm, first, dx, |b, at, dx| {
            for c0 in (0..channels).step_by(CHANNELS) {
                let c1 = (c0 + CHANNELS).min(channels);
                // dx = a dy + b (x - mean) + c
                let [mut mean, mut a, mut of_x, mut add] = [[0.0; CHANNELS]; 4];
                for c in c0..c1 {
                    let slot = (b * norm.groups + c / width) * 2;
                    let rstd = statistics[slot + 1];
                    mean[c - c0] = statistics[slot];
                    a[c - c0] = rstd * weight[c];
                    of_x[c - c0] = -rstd * rstd * means[slot + 1];
                    add[c - c0] = -rstd * means[slot];
                }
                let start = at * channels;
                let (x, dy) = (&x[start..][..dx.len()], &dy[start..][..dx.len()]);
                let factors = [&mean, &a, &of_x, &add];
                unsafe { backward(level, x, dy, factors, channels, [c0, c1], dx) };
            }
        });
    });
}

kernel! {
    fn backward(
        s: S,
        x: &[f32],
        dy: &[f32],
        factors: [&[f32; CHANNELS]; 4],
        channels: usize,
        part: [usize; 2],
        dx: &mut [f32],
    ) {
        unsafe {
            let [c0, c1] = part;
            let [mean, a, of_x, add] = factors.map(|f| f.as_ptr());
            let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
            for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(channels)) {
                let (x, dy) = (x.as_ptr().add(c0), dy.as_ptr().add(c0));
                let dx = dx.as_mut_ptr().add(c0);
                let mut c = 0;
                while c < c1 - c0 {
                    let n = (c1 - c0 - c).min(S::LANES);
                    let v = s.sub(s.load_first(x.add(c), n), s.load_first(mean.add(c), n));
                    let sum = s.fma(v, s.load_first(of_x.add(c), n), s.load_first(add.add(c), n));
                    let dy = s.load_first(dy.add(c), n);
                    s.store_first(dx.add(c), s.fma(dy, s.load_first(a.add(c), n), sum), n);
                    c += n;
                }
            }
        }
    }
}
