use super::{check, numbers};
use cpu_kernels::activation::Function;
use cpu_kernels::elementwise::{
    Padding, broadcast, copy, elementwise, geglu, geglu_gradient, of_zeros,
};
use cpu_kernels::epilogue::Epilogue;
use cpu_kernels::resize::{average_pool, upsample, upsample_gradient};
use cpu_kernels::simd::Level;

const FUNCTIONS: [Function; 6] = [
    Function::Silu,
    Function::Gelu,
    Function::GeluTanh,
    Function::QuickGelu,
    Function::Relu,
    Function::Exp,
];

fn normal(x: f64) -> (f64, f64) {
    let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2), density)
}

fn apply(function: Function, x: f64) -> f64 {
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    match function {
        Function::Silu => x * sigmoid(x),
        Function::Gelu => x * normal(x).0,
        Function::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Function::QuickGelu => x * sigmoid(1.702 * x),
        Function::Relu => x.max(0.0),
        Function::Exp => x.exp(),
    }
}

fn derivative(function: Function, x: f64) -> f64 {
    match function {
        Function::Relu => f64::from(x > 0.0),
        Function::Gelu => normal(x).0 + x * normal(x).1,
        _ => {
            let h = 1e-4;
            let d = |h: f64| (apply(function, x + h) - apply(function, x - h)) / (2.0 * h);
            (4.0 * d(h) - d(2.0 * h)) / 3.0
        }
    }
}

#[test]
fn functions() {
    let mut x: Vec<f32> = numbers(5000, 1).iter().map(|x| x * 12.0).collect();
    x.extend([0.0, -0.0, 1e-20, 80.0, -80.0, -30.0, 20.0]);
    for function in FUNCTIONS {
        for channels in [1, x.len()] {
            let wanted: Vec<f64> = x.iter().map(|x| apply(function, f64::from(*x))).collect();
            let run = |level| {
                let mut y = vec![f32::NAN; x.len()];
                elementwise(level, &x, channels, None, &[Epilogue::Function(function)], &mut y);
                y
            };
            check(&format!("{function:?}"), &wanted, 1e-6, run);
            for &level in Level::available() {
                for ((x, y), w) in x.iter().zip(run(level)).zip(&wanted) {
                    let tolerance = if function == Function::Exp { 2.5e-7 } else { 2e-6 };
                    let error = (f64::from(y) - w).abs();
                    let far = *x < -4.0 && function != Function::Exp;
                    let fits = error <= w.abs() * tolerance + 1e-37
                        || far && error < 1e-5 * w.abs() + 1e-15;
                    assert!(fits, "{function:?}({x}) = {y}, {w} at {}", level.name());
                }
            }
            if function == Function::Exp {
                continue;
            }
            let dy = numbers(x.len(), 2);
            let wanted = x
                .iter()
                .zip(&dy)
                .map(|(x, dy)| derivative(function, f64::from(*x)) * f64::from(*dy));
            check(
                &format!("{function:?}'s derivative"),
                &wanted.collect::<Vec<_>>(),
                2e-6,
                |level| {
                    let mut y = vec![f32::NAN; x.len()];
                    elementwise(
                        level,
                        &dy,
                        channels,
                        None,
                        &[Epilogue::Derivative(function, &x)],
                        &mut y,
                    );
                    y
                },
            );
        }
    }
}

#[test]
fn extremes() {
    for &level in Level::available() {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 88.7, -87.3, -100.0, 1000.0, -1000.0];
        let mut y = [0.0; 8];
        elementwise(level, &x, 8, None, &[Epilogue::Function(Function::Exp)], &mut y);
        assert!(y[0].is_nan() && y[1] == f32::INFINITY && y[6] == f32::INFINITY, "{y:?}");
        assert!(y[2] < 1e-44 && y[7] < 1e-44 && (y[3] / 88.7f32.exp() - 1.0).abs() < 1e-6, "{y:?}");
        assert!((y[4] / (-87.3f32).exp() - 1.0).abs() < 1e-6, "{y:?}");
        for function in [Function::Silu, Function::Gelu, Function::QuickGelu, Function::GeluTanh] {
            elementwise(level, &x, 8, None, &[Epilogue::Function(function)], &mut y);
            assert!(y[0].is_nan() && y[6] == 1000.0 && y[7] == 0.0, "{function:?} {y:?}");
        }
    }
}

/// Zeros around each of some feature maps.
pub fn pad(x: &[f64], channels: usize, p: &Padding) -> Vec<f64> {
    let [height, width] = p.padded();
    let batch = x.len() / (channels * p.height * p.width);
    let mut y = vec![0.0; batch * height * width * channels];
    for (pixel, x) in x.chunks_exact(channels).enumerate() {
        let (b, line, column) =
            (pixel / (p.height * p.width), pixel / p.width % p.height, pixel % p.width);
        let at = (b * height + line + p.edges[0]) * width + column + p.edges[2];
        y[at * channels..][..channels].copy_from_slice(x);
    }
    y
}

pub const PADDED: [Padding; 3] = [
    Padding { height: 5, width: 7, edges: [1, 1, 1, 1] },
    Padding { height: 40, width: 30, edges: [0, 1, 0, 1] },
    Padding { height: 1, width: 1, edges: [2, 0, 3, 1] },
];

#[test]
fn padding() {
    for (p, channels) in PADDED.iter().zip([3, 64, 5000]) {
        let x = numbers(3 * p.height * p.width * channels, 1);
        let wanted: Vec<f64> = x.iter().map(|x| f64::from(*x) * 0.5).collect();
        check("padding", &pad(&wanted, channels, p), 0.0, |level| {
            let mut y = vec![f32::NAN; pad(&wanted, channels, p).len()];
            elementwise(level, &x, channels, Some(p), &[Epilogue::Scale(0.5)], &mut y);
            y
        });
    }
}

#[test]
fn gated() {
    for [rows, d] in [[1, 1], [77, 33], [500, 160]] {
        let x: Vec<f32> = numbers(rows * 2 * d, 1).iter().map(|x| 4.0 * x).collect();
        let dy = numbers(rows * d, 2);
        let (mut y, mut dx) = (vec![0.0; rows * d], vec![0.0; rows * 2 * d]);
        for (at, y) in y.iter_mut().enumerate() {
            let (r, c) = (at / d, at % d);
            let [value, gate] = [0, d].map(|o| f64::from(x[r * 2 * d + o + c]));
            *y = value * apply(Function::Gelu, gate);
            dx[r * 2 * d + c] = f64::from(dy[at]) * apply(Function::Gelu, gate);
            dx[r * 2 * d + d + c] = f64::from(dy[at]) * value * derivative(Function::Gelu, gate);
        }
        check("geglu", &y, 1e-6, |level| {
            let mut y = vec![f32::NAN; rows * d];
            geglu(level, &x, d, &[], &mut y);
            y
        });
        check("geglu's gradient", &dx, 1e-6, |level| {
            let mut dx = vec![f32::NAN; rows * 2 * d];
            geglu_gradient(level, &x, &dy, d, &mut dx);
            dx
        });
    }
}

#[test]
fn lora() {
    let [rows, rank, out] = [33, 6, 50];
    let (t, u) = (numbers(rows * rank, 1), numbers(rank * out, 2));
    let matmul = |at: usize| {
        (0..rank)
            .map(|k| f64::from(t[at / out * rank + k]) * f64::from(u[at % out * rank + k]))
            .sum()
    };
    let wanted: Vec<f64> = (0..rows * out).map(matmul).collect();
    check("low rank", &wanted, 1e-6, |level| {
        let mut y = vec![f32::NAN; rows * out];
        let entry = Epilogue::Lora { hidden: &t, up: &u, rank, transposed: false };
        of_zeros(level, out, &[entry], &mut y);
        y
    });
}

#[test]
fn copies() {
    let x = numbers(100 * 37, 1);
    for [rows, width] in [[100, 20], [3, 1000]] {
        let strides = [x.len() / rows, width + 5];
        let mut wanted = vec![7.0; rows * strides[1]];
        for r in 0..rows {
            for c in 0..width {
                wanted[r * strides[1] + 3 + c] = f64::from(x[r * strides[0] + 2 + c]);
            }
        }
        check("copy", &wanted, 0.0, |_| {
            let mut y = vec![7.0; rows * strides[1]];
            copy(&x, &mut y, rows, width, [strides[0], 2], [strides[1], 3]);
            y
        });
    }
    let wanted: Vec<f64> =
        (0..5 * 4 * 740).map(|at| f64::from(x[at / (4 * 740) * 740 + at % 740])).collect();
    check("broadcast", &wanted, 0.0, |_| {
        let mut y = vec![f32::NAN; 5 * 4 * 740];
        broadcast(&x, [5, 4, 740], &mut y);
        y
    });
}

#[test]
fn sizes() {
    for ([batch, h, w], [height, width], channels) in [
        ([2, 3, 5], [6, 10], 7),
        ([1, 4, 4], [7, 5], 32),
        ([3, 1, 1], [1, 1], 1),
        ([1, 16, 16], [32, 32], 64),
    ] {
        let x = numbers(batch * h * w * channels, 1);
        let dy = numbers(batch * height * width * channels, 2);
        let (mut y, mut dx) = (vec![0.0; dy.len()], vec![0.0; x.len()]);
        for (at, y) in y.iter_mut().enumerate() {
            let (c, pixel) = (at % channels, at / channels);
            let (b, oy, ox) = (pixel / (height * width), pixel / width % height, pixel % width);
            let from = ((b * h + oy * h / height) * w + ox * w / width) * channels + c;
            *y = f64::from(x[from]);
            dx[from] += f64::from(dy[at]);
        }
        check("upsample", &y, 0.0, |level| {
            let mut y = vec![f32::NAN; dy.len()];
            upsample(level, &x, [batch, h, w], [height, width], channels, None, &[], &mut y);
            y
        });
        check("upsample's gradient", &dx, 1e-6, |_| {
            let mut dx = vec![f32::NAN; x.len()];
            upsample_gradient(&dy, [batch, height, width], [h, w], channels, &mut dx);
            dx
        });
        let (lines, columns) = (h.div_ceil(2), w.div_ceil(2));
        let mut y = vec![0.0; batch * lines * columns * channels];
        for (at, y) in y.iter_mut().enumerate() {
            let (c, pixel) = (at % channels, at / channels);
            let (b, line, column) =
                (pixel / (lines * columns), pixel / columns % lines, pixel % columns);
            let places = (line * 2..(line * 2 + 2).min(h))
                .flat_map(|l| (column * 2..(column * 2 + 2).min(w)).map(move |c| (l, c)));
            let values: Vec<f64> =
                places.map(|(l, o)| f64::from(x[((b * h + l) * w + o) * channels + c])).collect();
            *y = values.iter().sum::<f64>() / values.len() as f64;
        }
        check("mean of squares", &y, 1e-6, |level| {
            let mut y = vec![f32::NAN; batch * lines * columns * channels];
            average_pool(level, &x, [batch, h, w], channels, None, &[], &mut y);
            y
        });
    }
}
