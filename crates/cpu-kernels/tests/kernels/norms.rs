use super::elementwise::{PADDED, pad};
use super::{check, numbers};
use cpu_kernels::group_norm::{self, GroupNorm};
use cpu_kernels::layer_norm::{layer_norm, layer_norm_gradient};

const EPSILON: f32 = 1e-5;

fn moments(x: &[f64]) -> [f64; 2] {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
    [mean, 1.0 / (variance + f64::from(EPSILON)).sqrt()]
}

#[test]
fn of_rows() {
    for [rows, channels] in [[1, 1], [77, 768], [3, 37], [513, 320], [2, 5]] {
        let x: Vec<f32> = numbers(rows * channels, 1).iter().map(|x| x * 3.0 + 5.0).collect();
        let [weight, bias] = [2, 3].map(|seed| numbers(channels, seed));
        let dy = numbers(x.len(), 4);
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
            let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
            let [mean, rstd] = moments(&x);
            let n: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
            let g: Vec<f64> =
                dy.iter().zip(&weight).map(|(a, b)| f64::from(*a) * f64::from(*b)).collect();
            let of_g = g.iter().sum::<f64>() / channels as f64;
            let of_gn = g.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / channels as f64;
            for c in 0..channels {
                y.push(n[c] * f64::from(weight[c]) + f64::from(bias[c]));
                dx.push(rstd * (g[c] - of_g - n[c] * of_gn));
            }
        }
        check("layer norm", &y, 2e-6, |level| {
            let mut y = vec![f32::NAN; x.len()];
            layer_norm(level, &x, &weight, &bias, EPSILON, &[], &mut y);
            y
        });
        let tolerance = if channels == 1 { 1e30 } else { 4e-6 };
        check("layer norm's gradient", &dx, tolerance, |level| {
            let mut dx = vec![f32::NAN; x.len()];
            layer_norm_gradient(level, &x, &weight, &dy, EPSILON, &[], &mut dx);
            dx
        });
    }
}

#[test]
fn of_groups() {
    let mut cases: Vec<_> =
        PADDED.iter().map(|p| (2, p.height * p.width, 96, 32, Some(p))).collect();
    cases.extend([
        (1, 5000, 64, 32, None),
        (3, 77, 12, 4, None),
        (2, 1, 6, 3, None),
        (1, 33, 1030, 5, None),
        (2, 4096, 40, 8, None),
    ]);
    for (batch, rows, channels, groups, padding) in cases {
        let norm = GroupNorm { batch, rows, channels, groups };
        let x: Vec<f32> =
            numbers(batch * rows * channels, 1).iter().map(|x| x * 2.0 + 20.0).collect();
        let [weight, bias] = [2, 3].map(|seed| numbers(channels, seed));
        let dy = numbers(x.len(), 4);
        let width = channels / groups;
        let (mut statistics, mut means) = (Vec::new(), Vec::new());
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        for (b, g) in (0..batch).flat_map(|b| (0..groups).map(move |g| (b, g))) {
            let places: Vec<usize> = (0..rows)
                .flat_map(|r| (0..width).map(move |c| (b * rows + r) * channels + g * width + c))
                .collect();
            let own: Vec<f64> = places.iter().map(|at| f64::from(x[*at])).collect();
            let [mean, rstd] = moments(&own);
            statistics.extend([mean, rstd]);
            let n: Vec<f64> = own.iter().map(|x| (x - mean) * rstd).collect();
            let gs: Vec<f64> = places
                .iter()
                .map(|at| f64::from(dy[*at]) * f64::from(weight[at % channels]))
                .collect();
            let of_g = gs.iter().sum::<f64>() / gs.len() as f64;
            let of_gn = gs.iter().zip(&n).map(|(g, n)| g * n).sum::<f64>() / gs.len() as f64;
            means.extend([of_g, of_gn]);
            for (i, at) in places.iter().enumerate() {
                y[*at] = n[i] * f64::from(weight[at % channels]) + f64::from(bias[at % channels]);
                dx[*at] = rstd * (gs[i] - of_g - n[i] * of_gn);
            }
        }
        let [kept, kept_means] =
            [&statistics, &means].map(|v| v.iter().map(|v| *v as f32).collect::<Vec<_>>());
        let name = format!("{norm:?}");
        check(&format!("statistics of {name}"), &statistics, 1e-6, |level| {
            let mut scratch = vec![f32::NAN; norm.scratch_elements()];
            let mut y = vec![f32::NAN; kept.len()];
            group_norm::statistics(level, &norm, &x, EPSILON, &mut y, &mut scratch);
            // The second of each is small beside the first.
            for (y, w) in y.iter().zip(&statistics) {
                assert!((f64::from(*y) / w - 1.0).abs() < 1e-5, "{y} for {w}");
            }
            y
        });
        check(&format!("means of {name}"), &means, 1e-5, |level| {
            let mut scratch = vec![f32::NAN; norm.scratch_elements()];
            let mut y = vec![f32::NAN; kept.len()];
            group_norm::means(level, &norm, &x, &kept, &weight, &dy, &mut y, &mut scratch);
            y
        });
        let padded = |x: &[f64]| padding.map_or(x.to_vec(), |p| pad(x, channels, p));
        check(&name, &padded(&y), 1e-5, |level| {
            let mut y = vec![f32::NAN; padded(&y).len()];
            group_norm::group_norm(level, &norm, &x, &kept, &weight, &bias, padding, &[], &mut y);
            y
        });
        // Of two numbers in a group, what is left of the gradient is small.
        let tolerance = if rows * width < 8 { 1e-2 } else { 1e-5 };
        check(&format!("gradient of {name}"), &padded(&dx), tolerance, |level| {
            let mut y = vec![f32::NAN; padded(&dx).len()];
            group_norm::gradient(
                level,
                &norm,
                &x,
                &kept,
                &weight,
                &dy,
                &kept_means,
                padding,
                &[],
                &mut y,
            );
            y
        });
    }
}
