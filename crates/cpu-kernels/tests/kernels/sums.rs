use half::{bf16, f16};

use super::{check, numbers};
use cpu_kernels::embedding::{embedding, embedding_gradient};
use cpu_kernels::optimiser::{Moments, adamw};
use cpu_kernels::reduce::{normalize_by_max, normalize_by_max_gradient, sum, sum_scratch_elements};
use cpu_kernels::sampling::{guidance, mix, mix_in_place};
use cpu_kernels::simd::Level;
use cpu_kernels::weights::{Stored, widen_bf16, widen_f16};

#[test]
fn broadcast_operands() {
    for extents in
        [[1, 1, 1], [3, 4096, 320], [1, 77, 33], [1, 100_003, 1], [2, 5000, 3], [1, 1, 4000]]
    {
        let [outer, middle, inner] = extents;
        let x: Vec<f32> = numbers(outer * middle * inner, 1).iter().map(|x| x + 1.0).collect();
        let mut wanted = vec![0.0; outer * inner];
        for (at, x) in x.iter().enumerate() {
            wanted[at / (middle * inner) * inner + at % inner] += f64::from(*x);
        }
        check(&format!("sum of {extents:?}"), &wanted, 2e-7, |level| {
            let mut scratch = vec![f32::NAN; sum_scratch_elements(extents)];
            let mut y = vec![f32::NAN; outer * inner];
            sum(level, &x, extents, &mut y, &mut scratch);
            y
        });
    }
}

#[test]
fn halves() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let half: Vec<f16> = all.iter().map(|b| f16::from_bits(*b)).collect();
    let brain: Vec<bf16> = all.iter().map(|b| bf16::from_bits(*b)).collect();
    for &level in Level::available() {
        for count in [all.len(), 5, 1] {
            let mut y = vec![0.0; count];
            widen_f16(level, &half[..count], &mut y);
            for (y, x) in y.iter().zip(&half) {
                assert!(
                    y.to_bits() == x.to_f32().to_bits() || y.is_nan() && x.is_nan(),
                    "{y} for {x}"
                );
            }
            widen_bf16(level, &brain[..count], &mut y);
            for (y, x) in y.iter().zip(&brain) {
                assert!(
                    y.to_bits() == x.to_f32().to_bits() || y.is_nan() && x.is_nan(),
                    "{y} for {x}"
                );
            }
        }
    }
}

#[test]
fn updates() {
    let count = 100_001;
    let (state, gradient) = (numbers(3 * count, 1), numbers(count, 2));
    let state: Vec<f32> = state.iter().map(|s| s.abs()).collect();
    let rates = [0.999, 0.01, 0.3, 0.5, 1.0];
    let moments = Moments { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    let mut wanted: Vec<f64> = state.iter().map(|s| f64::from(*s)).collect();
    for i in 0..count {
        let g = f64::from(gradient[i]) * f64::from(rates[3]);
        let [p, m, v] = [0, 1, 2].map(|plane| wanted[plane * count + i]);
        let m = m + (g - m) * f64::from(1.0 - moments.beta1);
        let v = v * f64::from(moments.beta2) + g * g * f64::from(1.0 - moments.beta2);
        let step =
            f64::from(rates[1]) * m / (v.sqrt() / f64::from(rates[2]) + f64::from(moments.epsilon));
        let p = p * f64::from(rates[0]) - step;
        [0, 1, 2].iter().zip([p, m, v]).for_each(|(plane, v)| wanted[plane * count + i] = v);
    }
    check("adamw", &wanted, 1e-6, |level| {
        let mut state = state.clone();
        adamw(level, &mut state, &gradient, &rates, 1.0, moments);
        state
    });
    let mut still = state.clone();
    adamw(Level::best(), &mut still, &gradient, &rates, f32::NAN, moments);
    adamw(Level::best(), &mut still, &gradient, &[1.0, 1.0, 1.0, 1.0, 0.0], 1.0, moments);
    assert_eq!(still, state);
}

#[test]
fn rows_of_tables() {
    let channels = 33;
    let (table, extra) = (numbers(50 * channels, 1), numbers(2 * channels, 2));
    let half: Vec<f16> = table.iter().map(|t| f16::from_f32(*t)).collect();
    let ids = [3, 49, 50, 51, 3, 1000];
    let row = |id: usize| {
        if id < 50 { &table[id * channels..] } else { &extra[(id.min(51) - 50) * channels..] }
    };
    let wanted: Vec<f64> = ids
        .iter()
        .flat_map(|id| row(*id as usize)[..channels].iter().map(|v| f64::from(*v)))
        .collect();
    for (stored, tolerance) in [(Stored::F32(&table), 0.0), (Stored::F16(&half), 1e-3)] {
        check("embedding", &wanted, tolerance, |level| {
            let mut y = vec![f32::NAN; ids.len() * channels];
            embedding(level, stored, &extra, &ids, channels, &mut y);
            y
        });
    }
    let dy = numbers(ids.len() * channels, 3);
    for (first, rows, clamped) in [(0, 50, false), (0, 50, true), (50, 2, true)] {
        let mut wanted = vec![0.0; rows * channels];
        for (id, dy) in ids.iter().zip(dy.chunks_exact(channels)) {
            let Some(row) = (*id as usize).checked_sub(first) else { continue };
            let row = if clamped { row.min(rows - 1) } else { row };
            if row < rows {
                wanted[row * channels..]
                    .iter_mut()
                    .zip(dy)
                    .for_each(|(w, dy)| *w += f64::from(*dy));
            }
        }
        check("embedding's gradient", &wanted, 1e-6, |_| {
            let mut y = vec![f32::NAN; rows * channels];
            embedding_gradient(&ids, &dy, channels, first, clamped, &mut y);
            y
        });
    }
}

#[test]
fn samplers() {
    let (slots, size) = (3, 70_000);
    let (state, matrix) = (numbers(slots * size, 1), numbers(slots * (slots + 2), 2));
    let [a, b] = [3, 4].map(|seed| numbers(size, seed));
    let mut wanted = vec![0.0; slots * size];
    for (at, y) in wanted.iter_mut().enumerate() {
        let row = matrix[at / size * (slots + 2)..].iter().map(|v| f64::from(*v));
        let z = (0..slots).map(|j| state[j * size + at % size]).chain([a[at % size], b[at % size]]);
        *y = row.zip(z).map(|(f, z)| f * f64::from(z)).sum();
    }
    check("mix", &wanted, 1e-6, |_| {
        let mut y = vec![f32::NAN; state.len()];
        mix(&state, &a, &b, &matrix, slots, &mut y);
        let mut own = state.clone();
        mix_in_place(&mut own, &a, &b, &matrix, slots);
        assert_eq!(y, own);
        y
    });
    let wanted: Vec<f64> = (0..size)
        .map(|i| f64::from(state[i]) + 7.5 * (f64::from(state[size + i]) - f64::from(state[i])))
        .collect();
    check("guidance", &wanted, 1e-6, |_| {
        let mut y = vec![f32::NAN; size];
        guidance(&state[..2 * size], 7.5, &mut y);
        y
    });
}

#[test]
fn greatest() {
    let x = [1.0, 4.0, 2.0, 4.0];
    let dy = [1.0, 2.0, 3.0, -1.0];
    let (mut y, mut dx) = ([0.0; 4], [0.0; 4]);
    normalize_by_max(&x, &mut y);
    assert_eq!(y, [0.25, 1.0, 0.5, 1.0]);
    normalize_by_max_gradient(&x, &dy, &mut dx);
    // Of 11 / 4 that flow back, each takes half.
    assert_eq!(dx, [0.25, (2.0 - 1.375) / 4.0, 0.75, (-1.0 - 1.375) / 4.0]);
}
