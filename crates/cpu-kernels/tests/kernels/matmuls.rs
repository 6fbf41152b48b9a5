use half::{bf16, f16};

use super::{check, numbers};
use cpu_kernels::activation::Function;
use cpu_kernels::epilogue::{Broadcast, Epilogue};
use cpu_kernels::lora_down::{self, Lies};
use cpu_kernels::matmul::{conv2d, linear};
use cpu_kernels::simd::Level;
use cpu_kernels::weights::{Stored, Weights};

fn plain_linear(x: &[f32], w: &[f32], into: usize, out: usize) -> Vec<f64> {
    let dot =
        |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    let rows = x.chunks_exact(into);
    rows.flat_map(|x| (0..out).map(move |o| dot(x, &w[o * into..][..into]))).collect()
}

pub fn plain_conv(
    x: &[f32],
    [batch, height, width]: [usize; 3],
    w: &[f32],
    [out, into, kh, kw]: [usize; 4],
    stride: usize,
) -> Vec<f64> {
    let (lines, columns) = ((height - kh) / stride + 1, (width - kw) / stride + 1);
    let mut y = vec![0.0; batch * lines * columns * out];
    for (at, y) in y.iter_mut().enumerate() {
        let (o, pixel) = (at % out, at / out);
        let (b, oy, ox) = (pixel / (lines * columns), pixel / columns % lines, pixel % columns);
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let from = ((b * height + oy * stride + ky) * width + ox * stride + kx) * into;
            for i in 0..into {
                *y += f64::from(x[from + i]) * f64::from(w[((o * into + i) * kh + ky) * kw + kx]);
            }
        }
    }
    y
}

const SHAPES: [[usize; 3]; 10] = [
    [300, 2048, 70],
    [1, 1, 1],
    [1, 320, 1280],
    [77, 768, 70],
    [3, 5, 7],
    [130, 33, 96],
    [257, 2100, 40],
    [64, 16, 4],
    [50, 1030, 9],
    [700, 64, 64],
];

#[test]
fn linear_layers() {
    for [rows, into, out] in SHAPES {
        let (x, w) = (numbers(rows * into, 1), numbers(into * out, 2));
        let name = format!("linear {rows} x {into} -> {out}");
        let half: Vec<f16> = w.iter().map(|w| f16::from_f32(*w)).collect();
        let brain: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
        let rounded: [Vec<f32>; 2] =
            [half.iter().map(|w| w.to_f32()).collect(), brain.iter().map(|w| w.to_f32()).collect()];
        let stored = [
            (Stored::F32(&w), &w),
            (Stored::F16(&half), &rounded[0]),
            (Stored::BF16(&brain), &rounded[1]),
        ];
        for (stored, w) in stored {
            let weights = Weights::new(stored, out, into, [1, 1]);
            check(&name, &plain_linear(&x, w, into, out), 2e-6, |level| {
                let mut y = vec![f32::NAN; rows * out];
                linear(level, &x, &weights, &[], &mut y);
                y
            });
        }
        // The other way round.
        let dy = numbers(rows * out, 3);
        let turned: Vec<f32> =
            (0..into).flat_map(|i| (0..out).map(move |o| o * into + i)).map(|at| w[at]).collect();
        let weights = Weights::new(Stored::F32(&turned), into, out, [1, 1]);
        check(
            &format!("{name}, transposed"),
            &plain_linear(&dy, &turned, out, into),
            2e-6,
            |level| {
                let mut dx = vec![f32::NAN; rows * into];
                linear(level, &dy, &weights, &[], &mut dx);
                dx
            },
        );
        // The matrix's own gradient.
        let mut dw = vec![0.0; out * into];
        for (dy, x) in dy.chunks_exact(out).zip(x.chunks_exact(into)) {
            for (at, dw) in dw.iter_mut().enumerate() {
                *dw += f64::from(dy[at / into]) * f64::from(x[at % into]);
            }
        }
        check(&format!("{name}, of the weight"), &dw, 2e-6, |level| {
            let mut scratch =
                vec![f32::NAN; lora_down::weight_gradient_scratch_elements(rows, out, into)];
            let mut dw = vec![f32::NAN; out * into];
            lora_down::weight_gradient(level, &x, &dy, [out, into], &mut dw, &mut scratch);
            dw
        });
    }
}

#[test]
fn narrow_products() {
    for [rows, into, out] in [[1, 320, 4], [77, 33, 1], [300, 320, 13], [5, 3, 2], [4096, 40, 8]] {
        let (x, w) = (numbers(rows * into, 1), numbers(into * out, 2));
        let turned: Vec<f32> = (0..into * out).map(|at| w[at % out * into + at / out]).collect();
        let wanted = plain_linear(&x, &w, into, out);
        for (lies, w) in [(Lies::Rows, &w), (Lies::Columns, &turned)] {
            check(
                &format!("lora_down {rows} x {into} -> {out}, {lies:?}"),
                &wanted,
                1e-6,
                |level| {
                    let mut y = vec![f32::NAN; rows * out];
                    let mut scratch = vec![f32::NAN; lora_down::scratch_elements(lies, into, out)];
                    lora_down::lora_down(
                        level,
                        &x,
                        w,
                        lies,
                        [into, out],
                        &[],
                        &mut y,
                        &mut scratch,
                    );
                    y
                },
            );
        }
    }
}

#[test]
fn folded_stages() {
    for [rows, into, out, rank] in [[26, 40, 70, 4], [6, 33, 3, 5], [514, 64, 96, 130]] {
        let (x, w) = (numbers(rows * into, 1), numbers(into * out, 2));
        let [bias, same] = [out, rows * out].map(|n| numbers(n, 3));
        let per_batch = numbers(2 * out, 4);
        let (lora_down, wide) = (numbers(rows * rank, 5), numbers(out * rank, 6));
        let mut wanted = plain_linear(&x, &w, into, out);
        for (at, y) in wanted.iter_mut().enumerate() {
            let (r, c) = (at / out, at % out);
            for k in 0..rank {
                *y += f64::from(lora_down[r * rank + k]) * f64::from(wide[c * rank + k]);
            }
            *y = (*y + f64::from(bias[c])) * f64::from(per_batch[r / (rows / 2) * out + c]);
            *y /= 1.0 + (-*y).exp();
            *y = *y * 0.5 + f64::from(same[at]) * f64::from(same[0]);
        }
        let turned: Vec<f32> = (0..out * rank).map(|at| wide[at % out * rank + at / out]).collect();
        let scaled: Vec<f32> = same.iter().map(|v| v * same[0]).collect();
        let weights = Weights::new(Stored::F32(&w), out, into, [1, 1]);
        for (wide, transposed) in [(&wide, false), (&turned, true)] {
            let epilogue = [
                Epilogue::Lora { hidden: &lora_down, up: wide, rank, transposed },
                Epilogue::Add(&bias, Broadcast::Trailing { rows: 1 }),
                Epilogue::Multiply(&per_batch, Broadcast::Batch { rows: rows / 2 }),
                Epilogue::Function(Function::Silu),
                Epilogue::Scale(0.5),
                Epilogue::Add(&scaled, Broadcast::Same),
            ];
            check("epilogue", &wanted, 3e-6, |level| {
                let mut y = vec![f32::NAN; rows * out];
                linear(level, &x, &weights, &epilogue, &mut y);
                y
            });
        }
    }
}

#[test]
fn convolutions() {
    let cases = [
        ([1, 1, 1], [1, 1, 1, 1], 1),
        ([2, 10, 9], [40, 5, 3, 3], 1),
        ([3, 18, 18], [33, 16, 3, 3], 2),
        ([1, 66, 66], [4, 32, 3, 3], 1),
        ([1, 66, 66], [3, 17, 3, 3], 2),
        ([1, 34, 34], [64, 3, 3, 3], 1),
        ([2, 8, 300], [32, 8, 3, 3], 1),
        ([1, 10, 10], [96, 400, 3, 3], 1),
        ([1, 12, 12], [20, 6, 4, 2], 4),
        ([2, 7, 5], [70, 31, 1, 1], 1),
        ([2, 7, 5], [17, 9, 1, 1], 2),
    ];
    for (extents, shape, stride) in cases {
        let ([batch, height, width], [out, into, kh, kw]) = (extents, shape);
        let (x, w) =
            (numbers(batch * height * width * into, 1), numbers(shape.iter().product(), 2));
        let wanted = plain_conv(&x, extents, &w, shape, stride);
        let name = format!("convolution of {extents:?} by {shape:?}, {stride}");
        let half: Vec<f16> = w.iter().map(|w| f16::from_f32(*w)).collect();
        let rounded: Vec<f32> = half.iter().map(|w| w.to_f32()).collect();
        for (stored, w) in [(Stored::F32(&w), &w), (Stored::F16(&half), &rounded)] {
            let weights = Weights::new(stored, out, into, [kh, kw]);
            let wanted = plain_conv(&x, extents, w, shape, stride);
            check(&name, &wanted, 2e-6, |level| {
                let mut y = vec![f32::NAN; wanted.len()];
                conv2d(level, &x, extents, &weights, stride, &[], &mut y);
                y
            });
        }
        check(&format!("{name}, lora_down"), &wanted, 2e-6, |level| {
            let mut y = vec![f32::NAN; wanted.len()];
            let mut scratch =
                vec![f32::NAN; lora_down::conv2d_scratch_elements(into, out, [kh, kw])];
            let (io, window) = ([into, out], [kh, kw]);
            lora_down::lora_down_conv2d(
                level,
                &x,
                extents,
                &w,
                io,
                window,
                stride,
                &[],
                &mut y,
                &mut scratch,
            );
            y
        });
        transposed(extents, shape, stride, &w);
    }
}

/// Of the gradient, padded, the phases of the feature map's.
fn transposed([batch, height, width]: [usize; 3], shape: [usize; 4], stride: usize, w: &[f32]) {
    let [out, into, kh, kw] = shape;
    let (h, v) = ((height - kh) / stride + 1, (width - kw) / stride + 1);
    let dy = numbers(batch * h * v * out, 7);
    let mut dx = vec![0.0; batch * height * width * into];
    for (pixel, dy) in dy.chunks_exact(out).enumerate() {
        let (b, y, x) = (pixel / (h * v), pixel / v % h, pixel % v);
        for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
            let to = ((b * height + y * stride + ky) * width + x * stride + kx) * into;
            for (o, dy) in dy.iter().enumerate() {
                for i in 0..into {
                    dx[to + i] +=
                        f64::from(*dy) * f64::from(w[((o * into + i) * kh + ky) * kw + kx]);
                }
            }
        }
    }
    let (j, i) = (kh.div_ceil(stride), kw.div_ceil(stride));
    let (lines, columns) = (height.div_ceil(stride), width.div_ceil(stride));
    let (ph, pw) = (lines + j - 1, columns + i - 1);
    let mut padded = vec![0.0; batch * ph * pw * out];
    for (pixel, dy) in dy.chunks_exact(out).enumerate() {
        let (b, y, x) = (pixel / (h * v), pixel / v % h, pixel % v);
        padded[((b * ph + y + j - 1) * pw + x + i - 1) * out..][..out].copy_from_slice(dy);
    }
    let turned = transposed_window(w, out, into, [kh, kw], stride);
    let window = [kh, kw].map(|extent| extent.div_ceil(stride));
    let weights = Weights::new(Stored::F32(&turned), stride * stride * into, out, window);
    let name = format!("transposed convolution to {height} x {width} of {shape:?}, {stride}");
    check(&name, &dx, 2e-6, |level| {
        let phases = stride * stride * into;
        let mut y = vec![f32::NAN; batch * lines * columns * phases];
        conv2d(level, &padded, [batch, ph, pw], &weights, 1, &[], &mut y);
        let at = |at: usize| {
            let (c, pixel) = (at % into, at / into);
            let (b, oy, ox) = (pixel / (height * width), pixel / width % height, pixel % width);
            let phase = oy % stride * stride + ox % stride;
            y[((b * lines + oy / stride) * columns + ox / stride) * phases + phase * into + c]
        };
        (0..dx.len()).map(at).collect()
    });
}

#[test]
fn sums_of_outer_products() {
    for [rows, n] in [[1, 1], [70, 33], [200, 100], [129, 250]] {
        let (x, old) = (numbers(rows * n, 1), numbers(n * n, 2));
        let mut before = vec![0.0; 2 * n * n];
        before[..n * n].copy_from_slice(&old);
        let mut wanted = Vec::new();
        for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
            let matmuls = x.chunks_exact(n).map(|x| f64::from(x[i]) * f64::from(x[j]));
            wanted.push(matmuls.sum::<f64>() + f64::from(old[i * n + j]));
        }
        check("outer sums", &wanted, 1e-6, |level| {
            let mut sums = before.clone();
            lora_down::outer_sums(level, &mut sums, &x, n);
            let at = |(i, j): (usize, usize)| sums[i * n + j] + sums[n * n + i * n + j];
            (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))).map(at).collect()
        });
    }
}

/// `w` `[out, in, kh, kw]` of a convolution of `stride` as that of the convolution that is its
/// gradient: its outputs are the inputs for each of stride x stride phases, its inputs are `out`,
/// and its window, read from the far end, is `[kh / stride, kw / stride]`, rounded up.
fn transposed_window(
    w: &[f32],
    out: usize,
    into: usize,
    [kh, kw]: [usize; 2],
    stride: usize,
) -> Vec<f32> {
    let [lines, columns] = [kh, kw].map(|extent| extent.div_ceil(stride));
    let mut turned = Vec::with_capacity(w.len());
    for (phase, channel) in
        (0..stride * stride).flat_map(|phase| (0..into).map(move |channel| (phase, channel)))
    {
        for (o, tap) in (0..out).flat_map(|o| (0..lines * columns).map(move |tap| (o, tap))) {
            let ky = (lines - 1 - tap / columns) * stride + phase / stride;
            let kx = (columns - 1 - tap % columns) * stride + phase % stride;
            let inside = ky < kh && kx < kw;
            turned.push(if inside { w[((o * into + channel) * kh + ky) * kw + kx] } else { 0.0 });
        }
    }
    turned
}

/// Weights read the other way round are those that were turned round before, to the bit.
#[test]
fn turned_weights() {
    for [rows, out, into, window] in [
        [40, 9, 9, 1],
        [70, 33, 50, 1],
        [300, 64, 96, 1],
        [3, 1030, 40, 1],
        [1, 40, 36, 3],
        [2, 70, 33, 2],
    ] {
        let kernel = [window, window];
        let w = numbers(out * into * window * window, 2);
        let turned = transposed_window(&w, out, into, kernel, 1);
        let both = [w, turned];
        let half = both.each_ref().map(|w| w.iter().map(|w| f16::from_f32(*w)).collect::<Vec<_>>());
        let brain =
            both.each_ref().map(|w| w.iter().map(|w| bf16::from_f32(*w)).collect::<Vec<_>>());
        for [stored, apart] in [
            both.each_ref().map(|w| Stored::F32(w)),
            half.each_ref().map(|w| Stored::F16(w)),
            brain.each_ref().map(|w| Stored::BF16(w)),
        ] {
            let turned = Weights::new(stored, out, into, kernel).turned().unwrap();
            let apart = Weights::new(apart, into, out, kernel);
            for &level in Level::available() {
                let made = [&turned, &apart].map(|weights| {
                    if window == 1 {
                        let (dy, mut dx) = (numbers(rows * out, 3), vec![0.0; rows * into]);
                        linear(level, &dy, weights, &[], &mut dx);
                        return dx;
                    }
                    let (dy, mut dx) = (
                        numbers(rows * 9 * 8 * out, 3),
                        vec![0.0; rows * (10 - window) * (9 - window) * into],
                    );
                    conv2d(level, &dy, [rows, 9, 8], weights, 1, &[], &mut dx);
                    dx
                });
                assert!(
                    made[0] == made[1],
                    "{rows} rows, {out} x {into}, window of {window}, {}",
                    level.name()
                );
            }
        }
    }
}
