//! The optimiser's update (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019),
//! as torch's AdamW does it.

use super::parallel::{MEMORY, Shared, piece, pieces};
use super::simd::{Level, kernel};

/// How one update weighs the gradient.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
}

/// Updates `state` `[3, n]`, the numbers and their first and second moments, in place.
///
/// `rates`: 1 - learning rate * weight decay; learning rate / (1 - beta1^t); sqrt(1 - beta2^t); a
/// factor of the gradient; whether anything moves (0 or 1). Nothing moves either where `loss` is
/// not finite.
pub fn adamw(
    level: Level,
    state: &mut [f32],
    gradient: &[f32],
    rates: &[f32; 5],
    loss: f32,
    moments: Moments,
) {
    let count = gradient.len();
    assert_eq!(state.len(), 3 * count);
    if rates[4] == 0.0 || !loss.is_finite() {
        return;
    }
    let each = piece(count, 1024, 3 * MEMORY);
    let state = Shared::new(state);
    pieces(count.div_ceil(each), count * 3 * MEMORY, |i| unsafe {
        let start = i * each;
        let length = each.min(count - start);
        let [p, m, v] = [0, 1, 2].map(|plane| state.at(plane * count + start));
        update(level, p, m, v, gradient[start..].as_ptr(), length, rates, moments);
    });
}

kernel! {
    fn update(
        s: S,
        p: *mut f32,
        m: *mut f32,
        v: *mut f32,
        gradient: *const f32,
        count: usize,
        rates: &[f32; 5],
        moments: Moments,
    ) {
        unsafe {
            let Moments { beta1, beta2, epsilon } = moments;
            let [decay, rate, correction, factor, _] = rates.map(|rate| s.splat(rate));
            let (rest1, rest2) = (s.splat(1.0 - beta1), s.splat(1.0 - beta2));
            let (beta2, epsilon) = (s.splat(beta2), s.splat(epsilon));
            let mut i = 0;
            while i < count {
                let n = (count - i).min(S::LANES);
                let g = s.mul(s.load_first(gradient.add(i), n), factor);
                let first = s.load_first(m.add(i), n);
                let first = s.fma(s.sub(g, first), rest1, first);
                let second = s.mul(s.load_first(v.add(i), n), beta2);
                let second = s.fma(s.mul(g, g), rest2, second);
                let below = s.add(s.div(s.sqrt(second), correction), epsilon);
                let step = s.mul(rate, s.div(first, below));
                let number = s.sub(s.mul(s.load_first(p.add(i), n), decay), step);
                s.store_first(m.add(i), first, n);
                s.store_first(v.add(i), second, n);
                s.store_first(p.add(i), number, n);
                i += n;
            }
        }
    }
}
