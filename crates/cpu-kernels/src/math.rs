//! Elementary functions of vectors.

use super::simd::Simd;

/// e^x to about 1 unit in the last place; 0 far below, infinity far above.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    unsafe {
        // NaN stays, as the second operand does where either is NaN.
        let x = s.max(s.splat(-104.0), s.min(s.splat(89.0), x));
        let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
        let r = s.fma(n, s.splat(-0.693_359_4), x);
        let r = s.fma(n, s.splat(2.121_944_4e-4), r);
        let mut p = s.splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = s.fma(p, r, s.splat(c));
        }
        // In two steps, as 2^n may be out of range where the result is not.
        let half = s.round(s.mul(n, s.splat(0.5)));
        s.mul(s.mul(p, s.exp2_whole(half)), s.exp2_whole(s.sub(n, half)))
    }
}

/// [`exp`] of what is not positive; 0 from -87 down.
#[inline(always)]
pub(crate) unsafe fn exp_of_negative<S: Simd>(s: S, x: S::V) -> S::V {
    unsafe {
        let low = s.splat(-87.0);
        let bounded = s.max(low, x);
        let n = s.round(s.mul(bounded, s.splat(std::f32::consts::LOG2_E)));
        let r = s.fma(n, s.splat(-0.693_359_4), bounded);
        let r = s.fma(n, s.splat(2.121_944_4e-4), r);
        // Minimax over +-ln(2)/2: 6e-9.
        let mut p = s.splat(1.393_292_7e-3);
        for c in [8.333_162e-3, 4.166_646e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0] {
            p = s.fma(p, r, s.splat(c));
        }
        s.where_less(x, low, s.zero(), s.mul(p, s.exp2_whole(n)))
    }
}

#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    unsafe {
        // e^-|x| never overflows.
        let e = exp_of_negative(s, s.sub(s.zero(), s.abs(x)));
        let one = s.splat(1.0);
        s.div(s.where_less(x, s.zero(), e, one), s.add(one, e))
    }
}

/// The normal distribution's cumulative function, and its density: to about 2e-7 of the value, far
/// below zero too.
#[inline(always)]
pub(crate) unsafe fn normal<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    unsafe {
        // erfc(z) = t exp(-z^2 + p(t)), t = 2 / (2 + z), Chebyshev-fitted.
        let z = s.mul(s.abs(x), s.splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = s.div(s.splat(2.0), s.add(s.splat(2.0), z));
        let mut p = s.splat(0.170_872_77);
        for c in [
            -0.822_152_26,
            1.488_515_9,
            -1.135_204,
            0.278_868_07,
            -0.186_288_06,
            0.096_784_18,
            0.374_091_96,
            1.000_023_7,
        ] {
            p = s.fma(p, t, s.splat(c));
        }
        p = s.fma(p, t, s.splat(-1.265_512_2));
        let square = s.mul(s.mul(x, s.splat(-0.5)), x);
        let gauss = exp_of_negative(s, square);
        let tail = s.mul(s.mul(s.splat(0.5), t), s.mul(gauss, exp(s, p)));
        let below = s.where_less(x, s.zero(), tail, s.sub(s.splat(1.0), tail));
        (below, s.mul(gauss, s.splat(0.398_942_3)))
    }
}
