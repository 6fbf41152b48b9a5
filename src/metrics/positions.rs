//! The positions of a vision transformer's tokens, for pictures of another size than it was trained
//! on.

use super::error::{Error, Result};
use crate::checkpoint::Component;
use crate::models::config::VitConfig;
use crate::picture::resample::{Taps, taps};

/// `[1 + registers + side * side, hidden_size]`: the token that stands for the whole picture with
/// its position, the registers, and the positions of patches, spread as transformers does it:
/// bicubically, without aliasing where there are registers.
pub(super) fn positions(
    component: &Component,
    config: &VitConfig,
    side: usize,
) -> Result<Vec<f32>> {
    let width = config.hidden_size;
    let read = |name: &str, rows: usize| -> Result<Vec<f32>> {
        let view = component.tensor(name).map_err(crate::sd::Error::from)?;
        match view.len() == rows * width {
            true => Ok(view.to_f32(0..view.len())),
            false => Err(Error::Unsupported {
                path: component.path().to_path_buf(),
                problem: format!("`{name}` is {:?}, expected {rows} rows of {width}", view.shape()),
            }),
        }
    };
    let mut table = read("cls_token", 1)?;
    let all = read("pos_embed", config.positions)?;
    let square = |count: usize| {
        let side = count.isqrt();
        (side * side == count).then_some(side)
    };
    let (first, trained) = match (square(config.positions), square(config.positions - 1)) {
        // The whole picture's has none where all of them are patches'.
        (Some(trained), None) => (0, trained),
        (_, Some(trained)) => (1, trained),
        (None, None) => {
            let problem = format!("{} positions, which are no square", config.positions);
            return Err(Error::Unsupported { path: component.path().to_path_buf(), problem });
        }
    };
    let (own, patches) = all.split_at(first * width);
    table.iter_mut().zip(own).for_each(|(token, position)| *token += position);
    if config.num_registers > 0 {
        table.extend(read("registers", config.num_registers)?);
    }
    match trained == side {
        true => table.extend(patches),
        false => {
            let taps = match config.num_registers {
                0 => interpolated(trained, side),
                _ => taps(trained, side),
            };
            table.extend(spread(patches, width, trained, &taps));
        }
    }
    Ok(table)
}

/// Torch's bicubic interpolation: Keys' cubic with a = -3/4 between the nearest four, and what lies
/// beyond the edge as the edge is.
fn interpolated(from: usize, to: usize) -> Vec<Taps> {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let of = |at: usize| {
        let centre = (at as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let (below, t) = (centre.floor(), centre - centre.floor());
        let four = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        let mut weights = vec![0.0; from];
        for (i, weight) in four.into_iter().enumerate() {
            let place = (below + i as f64 - 1.0).clamp(0.0, (from - 1) as f64) as usize;
            weights[place] += weight;
        }
        Taps { first: 0, weights }
    };
    (0..to).map(of).collect()
}

/// A square of `from` rows and columns of `width` values, along both.
fn spread(values: &[f32], width: usize, from: usize, taps: &[Taps]) -> Vec<f32> {
    let mix = |taps: &Taps, at: &dyn Fn(usize) -> f64| -> f64 {
        taps.weights.iter().enumerate().map(|(i, weight)| weight * at(taps.first + i)).sum()
    };
    // Columns first: rows of `from` become rows of `to`.
    let to = taps.len();
    let mut narrow = Vec::with_capacity(from * to * width);
    for y in 0..from {
        for taps in taps {
            for c in 0..width {
                let at = |x: usize| f64::from(values[(y * from + x) * width + c]);
                narrow.push(mix(taps, &at));
            }
        }
    }
    let mut spread = Vec::with_capacity(to * to * width);
    for taps in taps {
        for x in 0..to {
            for c in 0..width {
                spread.push(mix(taps, &|y: usize| narrow[(y * to + x) * width + c]) as f32);
            }
        }
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_stays_one_and_slopes_stay_slopes() {
        let same = spread(&[3.0; 2 * 25], 2, 5, &interpolated(5, 3));
        assert!(same.len() == 2 * 9 && same.iter().all(|v| (v - 3.0).abs() < 1e-6));
        let slope: Vec<f32> = (0..81).map(|i| (i % 9) as f32).collect();
        let half = spread(&slope, 1, 9, &interpolated(9, 3));
        assert!((half[1] - 4.0).abs() < 1e-6 && (half[1] - half[0] - 3.0).abs() < 1e-5);
    }
}
