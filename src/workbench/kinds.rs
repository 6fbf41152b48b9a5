//! What kernels are usually written for: each kind's tensors by name, and its result in f64.

use super::expected::Expected;

/// Computes a row, given sizes, inputs, numbers, and which.
pub(super) type Row = fn(&[usize], &[&[f64]], &[f64], usize, &mut [Expected]);

/// Where exponents of a softmax stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exponents {
    /// In the rows of the first input.
    Rows,
    /// In the products of the rows of the first two.
    Scores,
}

/// A kind of kernel.
pub(super) struct Kind {
    pub name: &'static str,
    /// What it computes, in a line.
    pub what: &'static str,
    pub sizes: &'static [&'static str],
    /// Names and shapes.
    pub inputs: &'static [(&'static str, &'static [&'static str])],
    pub output: &'static [&'static str],
    /// Numbers beside sizes that uniforms may ask for.
    pub numbers: &'static [(&'static str, &'static str)],
    /// Terms that are added up for an element.
    pub terms: &'static str,
    pub flops: &'static str,
    /// Of `row`, a row of the output along its last axis, given sizes, inputs and numbers.
    pub row: Row,
    /// Labels and sizes.
    pub shapes: &'static [(&'static str, &'static [usize])],
    /// How large inputs may be, so that results stay what f32 can tell.
    pub wide: f64,
    /// As `wide`, so that results stay what f16 can hold.
    pub wide_half: f64,
    /// Sums of products, which f16 holds only if terms cancel each other.
    pub cancels: bool,
    /// Where numbers are taken the exponentials of, if they are.
    pub exponents: Option<Exponents>,
    /// Those of the models' networks.
    pub sd15: &'static [&'static [usize]],
    pub sdxl: &'static [&'static [usize]],
}

pub(super) const KINDS: [Kind; 7] = [
    Kind {
        name: "matmul",
        what: "y = a b",
        sizes: &["rows", "inner", "columns"],
        inputs: &[("a", &["rows", "inner"]), ("b", &["inner", "columns"])],
        output: &["rows", "columns"],
        numbers: &[],
        terms: "inner",
        flops: "2 * rows * inner * columns",
        row: matmul,
        shapes: &[
            ("ordinary", &[64, 64, 64]),
            ("ragged", &[33, 20, 17]),
            ("wide", &[5, 7, 130]),
            ("tall", &[70, 3, 9]),
            ("tiny", &[1, 1, 1]),
            ("one row", &[1, 64, 48]),
            ("deep", &[3, 300, 5]),
            ("very deep", &[2, 2600, 3]),
            ("no rows", &[0, 16, 16]),
            ("huge", &[515, 300, 259]),
        ],
        wide: 300.0,
        wide_half: 200.0,
        cancels: true,
        exponents: None,
        sd15: &[
            &[4096, 320, 320],
            &[4096, 320, 2560],
            &[4096, 1280, 320],
            &[1024, 640, 640],
            &[256, 1280, 1280],
            &[77, 768, 320],
        ],
        sdxl: &[&[4096, 640, 640], &[4096, 640, 5120], &[1024, 1280, 1280], &[77, 2048, 640]],
    },
    Kind {
        name: "conv3x3",
        what: "y = x convolved with w, 3 x 3, one pixel of zeros around",
        sizes: &["batch", "height", "width", "inputs", "outputs"],
        inputs: &[
            ("x", &["batch", "height", "width", "inputs"]),
            ("w", &["outputs", "3", "3", "inputs"]),
        ],
        output: &["batch", "height", "width", "outputs"],
        numbers: &[],
        terms: "9 * inputs",
        flops: "18 * batch * height * width * inputs * outputs",
        row: conv3x3,
        shapes: &[
            ("ordinary", &[1, 8, 8, 16, 16]),
            ("batches", &[2, 8, 8, 8, 16]),
            ("ragged", &[2, 5, 7, 6, 10]),
            ("tiny", &[1, 1, 1, 1, 1]),
            ("one row", &[1, 1, 19, 4, 8]),
            ("deep", &[1, 3, 3, 70, 4]),
            ("no batch", &[0, 4, 4, 4, 4]),
            ("huge", &[1, 40, 37, 64, 66]),
        ],
        wide: 300.0,
        wide_half: 250.0,
        cancels: true,
        exponents: None,
        sd15: &[
            &[1, 64, 64, 320, 320],
            &[1, 32, 32, 640, 640],
            &[1, 16, 16, 1280, 1280],
            &[1, 8, 8, 1280, 1280],
        ],
        sdxl: &[&[1, 128, 128, 320, 320], &[1, 64, 64, 640, 640], &[1, 32, 32, 1280, 1280]],
    },
    Kind {
        name: "attention",
        what: "y = softmax(scale q k^T) v, for each head",
        sizes: &["batch", "tokens", "keys", "heads", "depth"],
        inputs: &[
            ("q", &["batch", "tokens", "heads * depth"]),
            ("k", &["batch", "keys", "heads * depth"]),
            ("v", &["batch", "keys", "heads * depth"]),
        ],
        output: &["batch", "tokens", "heads * depth"],
        numbers: &[("scale", "1 / sqrt(depth)")],
        terms: "depth + keys",
        flops: "4 * batch * tokens * keys * heads * depth",
        row: attention,
        shapes: &[
            ("ordinary", &[1, 32, 32, 2, 16]),
            ("batches", &[2, 16, 32, 2, 16]),
            ("ragged", &[2, 17, 21, 3, 8]),
            ("tiny", &[1, 1, 1, 1, 4]),
            ("one key", &[1, 9, 1, 1, 8]),
            ("a prompt", &[1, 20, 77, 2, 8]),
            ("deep heads", &[1, 9, 40, 1, 160]),
            ("odd heads", &[1, 9, 11, 2, 7]),
            ("no tokens", &[1, 0, 7, 1, 8]),
            ("huge", &[1, 300, 333, 2, 40]),
        ],
        wide: 10.0,
        wide_half: 10.0,
        cancels: false,
        exponents: Some(Exponents::Scores),
        sd15: &[
            &[1, 4096, 4096, 8, 40],
            &[1, 1024, 1024, 8, 80],
            &[1, 256, 256, 8, 160],
            &[1, 4096, 77, 8, 40],
        ],
        sdxl: &[&[1, 4096, 4096, 10, 64], &[1, 1024, 1024, 20, 64], &[1, 4096, 77, 10, 64]],
    },
    Kind {
        name: "group_norm",
        what: "y = (x - mean) / sqrt(variance + epsilon) weight + bias, over a group's channels",
        sizes: &["batch", "rows", "channels", "groups"],
        inputs: &[
            ("x", &["batch", "rows", "channels"]),
            ("weight", &["channels"]),
            ("bias", &["channels"]),
        ],
        output: &["batch", "rows", "channels"],
        numbers: &[("epsilon", "1e-5")],
        terms: "rows * channels / groups",
        flops: "9 * batch * rows * channels",
        row: group_norm,
        shapes: &[
            ("ordinary", &[1, 16, 32, 4]),
            ("batches", &[2, 16, 32, 4]),
            ("ragged", &[2, 13, 30, 5]),
            ("tiny", &[1, 1, 4, 2]),
            ("long", &[1, 300, 8, 2]),
            ("odd groups", &[1, 16, 9, 3]),
            ("no batch", &[0, 8, 8, 2]),
            ("huge", &[1, 1100, 64, 32]),
        ],
        wide: 300.0,
        wide_half: 300.0,
        cancels: false,
        exponents: None,
        sd15: &[&[1, 4096, 320, 32], &[1, 1024, 640, 32], &[1, 256, 1280, 32]],
        sdxl: &[&[1, 16384, 320, 32], &[1, 4096, 640, 32], &[1, 1024, 1280, 32]],
    },
    Kind {
        name: "layer_norm",
        what: "y = (x - mean) / sqrt(variance + epsilon) weight + bias, over each row",
        sizes: &["rows", "columns"],
        inputs: &[("x", &["rows", "columns"]), ("weight", &["columns"]), ("bias", &["columns"])],
        output: &["rows", "columns"],
        numbers: &[("epsilon", "1e-5")],
        terms: "columns",
        flops: "9 * rows * columns",
        row: layer_norm,
        shapes: &ROWS,
        wide: 300.0,
        wide_half: 300.0,
        cancels: false,
        exponents: None,
        sd15: &[&[4096, 320], &[1024, 640], &[256, 1280], &[77, 768]],
        sdxl: &[&[4096, 640], &[1024, 1280], &[77, 1280]],
    },
    Kind {
        name: "geglu",
        what: "y = x gelu(gate): x the first half of each row, gate the second",
        sizes: &["rows", "columns"],
        inputs: &[("x", &["rows", "2 * columns"])],
        output: &["rows", "columns"],
        numbers: &[],
        terms: "16",
        flops: "16 * rows * columns",
        row: geglu,
        shapes: &ROWS,
        wide: 300.0,
        wide_half: 200.0,
        cancels: false,
        exponents: None,
        sd15: &[&[4096, 1280], &[1024, 2560], &[256, 5120]],
        sdxl: &[&[4096, 2560], &[1024, 5120]],
    },
    Kind {
        name: "softmax",
        what: "y = exp(x) / sum of exp(x), over each row",
        sizes: &["rows", "columns"],
        inputs: &[("x", &["rows", "columns"])],
        output: &["rows", "columns"],
        numbers: &[],
        terms: "columns",
        flops: "5 * rows * columns",
        row: softmax,
        shapes: &ROWS,
        wide: 300.0,
        wide_half: 300.0,
        cancels: false,
        exponents: Some(Exponents::Rows),
        sd15: &[&[4096, 77], &[4096, 1024], &[1024, 1024]],
        sdxl: &[&[4096, 77], &[4096, 4096]],
    },
];

const ROWS: [(&str, &[usize]); 8] = [
    ("ordinary", &[8, 64]),
    ("ragged", &[7, 37]),
    ("wide", &[3, 300]),
    ("very wide", &[2, 5121]),
    ("tiny", &[1, 1]),
    ("long", &[130, 5]),
    ("no rows", &[0, 16]),
    ("huge", &[700, 513]),
];

fn matmul(sizes: &[usize], inputs: &[&[f64]], _: &[f64], row: usize, out: &mut [Expected]) {
    let (inner, columns) = (sizes[1], sizes[2]);
    for (k, &a) in inputs[0][row * inner..][..inner].iter().enumerate() {
        for (out, &b) in out.iter_mut().zip(&inputs[1][k * columns..][..columns]) {
            out.add(a * b);
        }
    }
}

fn conv3x3(sizes: &[usize], inputs: &[&[f64]], _: &[f64], row: usize, out: &mut [Expected]) {
    let [_, height, width, into, _] = *sizes else { return };
    let (entry, y, x) = (row / (height * width), row / width % height, row % width);
    for (ky, kx) in (0..9).map(|tap| (tap / 3, tap % 3)) {
        let (Some(from_y), Some(from_x)) = ((y + ky).checked_sub(1), (x + kx).checked_sub(1))
        else {
            continue;
        };
        if from_y >= height || from_x >= width {
            continue;
        }
        let pixel = &inputs[0][((entry * height + from_y) * width + from_x) * into..][..into];
        for (output, out) in out.iter_mut().enumerate() {
            let weights = &inputs[1][((output * 3 + ky) * 3 + kx) * into..][..into];
            pixel.iter().zip(weights).for_each(|(x, w)| out.add(x * w));
        }
    }
}

fn attention(
    sizes: &[usize],
    inputs: &[&[f64]],
    numbers: &[f64],
    row: usize,
    out: &mut [Expected],
) {
    let [_, tokens, keys, heads, depth] = *sizes else { return };
    let (entry, channels, scale) = (row / tokens, heads * depth, numbers[0]);
    for head in 0..heads {
        let q = &inputs[0][row * channels + head * depth..][..depth];
        let at = |key: usize| (entry * keys + key) * channels + head * depth;
        let mut scores = vec![0.0; keys];
        // How far rounding may move a score, in units of the last place.
        let mut loose: f64 = 1.0;
        for (key, score) in scores.iter_mut().enumerate() {
            let k = &inputs[1][at(key)..][..depth];
            *score = scale * q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>();
            let terms = scale * q.iter().zip(k).map(|(q, k)| (q * k).abs()).sum::<f64>();
            loose = loose.max(1.0 + 2.0 * terms);
        }
        let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // A score that is no number leaves nothing to compare with; `max` would pass over it.
        let lost = scores.iter().any(|score| score.is_nan());
        let weights: Vec<f64> = scores.iter().map(|score| (score - peak).exp()).collect();
        let total: f64 = if lost { f64::NAN } else { weights.iter().sum() };
        for (channel, out) in out[head * depth..][..depth].iter_mut().enumerate() {
            for (key, weight) in weights.iter().enumerate() {
                let term = weight / total * inputs[2][at(key) + channel];
                out.value += term;
                out.scale += term.abs() * loose;
            }
        }
    }
}

/// Mean and 1 / sqrt(variance + epsilon).
fn moments(values: impl Iterator<Item = f64> + Clone, epsilon: f64) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

fn normalised(x: f64, mean: f64, rstd: f64, weight: f64, bias: f64) -> Expected {
    Expected {
        value: (x - mean) * rstd * weight + bias,
        scale: (x.abs() + mean.abs() + 1.0) * rstd * weight.abs() + bias.abs(),
    }
}

fn group_norm(
    sizes: &[usize],
    inputs: &[&[f64]],
    numbers: &[f64],
    row: usize,
    out: &mut [Expected],
) {
    let [_, rows, channels, groups] = *sizes else { return };
    let width = channels / groups.max(1);
    let entry = &inputs[0][row / rows * rows * channels..][..rows * channels];
    for group in 0..groups {
        let values =
            entry.chunks_exact(channels).flat_map(|row| row[group * width..][..width].to_vec());
        let (mean, rstd) = moments(values, numbers[0]);
        for channel in group * width..(group + 1) * width {
            let x = inputs[0][row * channels + channel];
            out[channel] = normalised(x, mean, rstd, inputs[1][channel], inputs[2][channel]);
        }
    }
}

fn layer_norm(
    sizes: &[usize],
    inputs: &[&[f64]],
    numbers: &[f64],
    row: usize,
    out: &mut [Expected],
) {
    let columns = sizes[1];
    let values = &inputs[0][row * columns..][..columns];
    let (mean, rstd) = moments(values.iter().copied(), numbers[0]);
    for (column, out) in out.iter_mut().enumerate() {
        *out = normalised(values[column], mean, rstd, inputs[1][column], inputs[2][column]);
    }
}

fn geglu(sizes: &[usize], inputs: &[&[f64]], _: &[f64], row: usize, out: &mut [Expected]) {
    let columns = sizes[1];
    let values = &inputs[0][row * 2 * columns..][..2 * columns];
    for (column, out) in out.iter_mut().enumerate() {
        let (x, gate) = (values[column], values[columns + column]);
        let gelu = 0.5 * gate * (1.0 + libm::erf(gate / std::f64::consts::SQRT_2));
        *out = Expected { value: x * gelu, scale: (x * gate).abs() };
    }
}

fn softmax(sizes: &[usize], inputs: &[&[f64]], _: &[f64], row: usize, out: &mut [Expected]) {
    let columns = sizes[1];
    let values = &inputs[0][row * columns..][..columns];
    let lost = values.iter().any(|value| value.is_nan());
    let peak = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = values.iter().map(|value| (value - peak).exp()).sum();
    let total = if lost { f64::NAN } else { total };
    for (out, value) in out.iter_mut().zip(values) {
        let share = (value - peak).exp() / total;
        // What is off in a difference of large numbers is off in the exponential.
        *out = Expected { value: share, scale: share * (1.0 + value.abs() + peak.abs()) + 1e-30 };
    }
}
