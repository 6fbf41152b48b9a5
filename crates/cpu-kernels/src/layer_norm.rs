//! Layer normalisation over the channels of every row.

use super::elementwise::by_runs;
use super::epilogue::Epilogue;
use super::simd::{Level, Simd, kernel};

/// Each row of `x` to mean 0 and variance 1 (`epsilon` added to it), times `weight` plus `bias`;
/// then the epilogue.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn layer_norm(
    level: Level,
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    let channels = weight.len();
    assert!(bias.len() == channels && x.len() == y.len());
    let rows = x.len() / channels.max(1);
    by_runs(level, rows, channels, None, 16, epilogue, y, |first, y| unsafe {
        forward(level, &x[first * channels..][..y.len()], weight, bias, epsilon, y);
    });
}

/// With g = dy * weight and n the normalised row, rstd * (g - mean(g) - n mean(g n)); then the
/// epilogue.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn layer_norm_gradient(
    level: Level,
    x: &[f32],
    weight: &[f32],
    dy: &[f32],
    epsilon: f32,
    epilogue: &[Epilogue<'_>],
    dx: &mut [f32],
) {
    let channels = weight.len();
    assert!(x.len() == dx.len() && dy.len() == x.len());
    let rows = x.len() / channels.max(1);
    by_runs(level, rows, channels, None, 32, epilogue, dx, |first, dx| unsafe {
        let start = first * channels;
        backward(level, &x[start..][..dx.len()], weight, &dy[start..][..dx.len()], epsilon, dx);
    });
}

/// Mean and 1/sqrt(variance + epsilon).
#[inline(always)]
unsafe fn statistics<S: Simd>(s: S, row: *const f32, count: usize, epsilon: f32) -> [f32; 2] {
    unsafe {
        let whole = count / (4 * S::LANES) * (4 * S::LANES);
        let mut sums = [s.zero(); 4];
        let mut i = 0;
        while i < whole {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = s.add(*sum, s.load(row.add(i + j * S::LANES)));
            }
            i += 4 * S::LANES;
        }
        while i < count {
            let n = (count - i).min(S::LANES);
            sums[0] = s.add(sums[0], s.load_first(row.add(i), n));
            i += n;
        }
        let all = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
        let mean = s.sum(all) / count as f32;
        let m = s.splat(mean);
        let mut sums = [s.zero(); 4];
        let mut i = 0;
        while i < whole {
            for (j, sum) in sums.iter_mut().enumerate() {
                let v = s.sub(s.load(row.add(i + j * S::LANES)), m);
                *sum = s.fma(v, v, *sum);
            }
            i += 4 * S::LANES;
        }
        let mut rest = 0.0;
        while i < count {
            let n = (count - i).min(S::LANES);
            if n == S::LANES {
                let v = s.sub(s.load(row.add(i)), m);
                sums[0] = s.fma(v, v, sums[0]);
            } else {
                for j in 0..n {
                    let v = *row.add(i + j) - mean;
                    rest += v * v;
                }
            }
            i += n;
        }
        let all = s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]));
        let variance = (s.sum(all) + rest) / count as f32;
        [mean, 1.0 / (variance + epsilon).sqrt()]
    }
}

kernel! {
    fn forward(s: S, x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
        unsafe {
            let channels = weight.len();
            let (w, b) = (weight.as_ptr(), bias.as_ptr());
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                let (x, y) = (x.as_ptr(), y.as_mut_ptr());
                let [mean, rstd] = statistics(s, x, channels, epsilon);
                let (mean, rstd) = (s.splat(mean), s.splat(rstd));
                let mut c = 0;
                while c < channels {
                    let n = (channels - c).min(S::LANES);
                    let v = s.mul(s.sub(s.load_first(x.add(c), n), mean), rstd);
                    let v = s.fma(v, s.load_first(w.add(c), n), s.load_first(b.add(c), n));
                    s.store_first(y.add(c), v, n);
                    c += n;
                }
            }
        }
    }
}

kernel! {
    fn backward(s: S, x: &[f32], weight: &[f32], dy: &[f32], epsilon: f32, dx: &mut [f32]) {
        unsafe {
            let channels = weight.len();
            let w = weight.as_ptr();
            let rows = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
            for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(channels)) {
                let (x, dy, dx) = (x.as_ptr(), dy.as_ptr(), dx.as_mut_ptr());
                let [mean, rstd] = statistics(s, x, channels, epsilon);
                let (mean, r) = (s.splat(mean), s.splat(rstd));
                let (mut of_g, mut of_gn) = (s.zero(), s.zero());
                let mut c = 0;
                while c < channels {
                    let n = (channels - c).min(S::LANES);
                    let normal = s.mul(s.sub(s.load_first(x.add(c), n), mean), r);
                    let g = s.mul(s.load_first(dy.add(c), n), s.load_first(w.add(c), n));
                    of_g = s.add(of_g, g);
                    of_gn = s.fma(g, normal, of_gn);
                    c += n;
                }
                let of_g = s.splat(s.sum(of_g) / channels as f32);
                let of_gn = s.splat(s.sum(of_gn) / channels as f32);
                let mut c = 0;
                while c < channels {
                    let n = (channels - c).min(S::LANES);
                    let normal = s.mul(s.sub(s.load_first(x.add(c), n), mean), r);
                    let g = s.mul(s.load_first(dy.add(c), n), s.load_first(w.add(c), n));
                    let v = s.sub(s.sub(g, of_g), s.mul(normal, of_gn));
                    s.store_first(dx.add(c), s.mul(v, r), n);
                    c += n;
                }
            }
        }
    }
}
