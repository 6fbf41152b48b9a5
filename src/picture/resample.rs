//! The bicubic filter as Pillow has it, bit for bit: towers were trained on pictures that it made.

use super::{Picture, Result, check_size};

/// Binary digits behind the point in which weights are rounded.
const PRECISION: u32 = 22;
/// Of the filter on either side, in pixels of the smaller picture.
const SUPPORT: f64 = 2.0;

/// Which values one new value is made of, and how much each of them counts; all weights together
/// are 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Taps {
    pub first: usize,
    pub weights: Vec<f64>,
}

/// The taps of `to` values that are made of `from`: what lies between is spread evenly, and where
/// values become fewer, all that one covers counts (no aliasing).
pub(crate) fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to.max(1) as f64;
    let stretch = scale.max(1.0);
    let (support, narrowed) = (SUPPORT * stretch, 1.0 / stretch);
    let of = |at: usize| {
        let centre = (at as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let last = ((centre + support + 0.5) as usize).min(from);
        let weights = (first..last).map(|x| cubic((x as f64 - centre + 0.5) * narrowed));
        let weights: Vec<f64> = weights.collect();
        let sum: f64 = weights.iter().sum();
        Taps { first, weights: weights.iter().map(|weight| weight / sum).collect() }
    };
    (0..to).map(of).collect()
}

/// Keys' cubic with a = -1/2.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

impl Picture {
    /// The picture at another size by Pillow's bicubic filter, bit for bit; proportions are the
    /// caller's business.
    ///
    /// # Errors
    /// A size that no picture has.
    pub fn resized_bicubic(&self, width: u32, height: u32) -> Result<Picture> {
        check_size(width, height)?;
        let (w, h) = (self.width as usize, self.height as usize);
        let mut rgb = self.rgb.clone();
        if width != self.width {
            let taps = rounded(w, width as usize);
            let rows = rgb.chunks_exact(w * 3);
            rgb = rows.flat_map(|row| along(row, &taps)).collect();
        }
        if height != self.height {
            let taps = rounded(h, height as usize);
            rgb = down(&rgb, width as usize * 3, &taps);
        }
        Picture::new(width, height, rgb)
    }
}

/// Weights as whole numbers.
type Rounded = (usize, Vec<i32>);

fn rounded(from: usize, to: usize) -> Vec<Rounded> {
    let one = f64::from(1 << PRECISION);
    let round = |weight: &f64| (weight * one).round() as i32;
    let taps = taps(from, to);
    taps.iter().map(|taps| (taps.first, taps.weights.iter().map(round).collect())).collect()
}

fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// One row of colours.
fn along(row: &[u8], taps: &[Rounded]) -> Vec<u8> {
    let mut out = Vec::with_capacity(taps.len() * 3);
    for (first, weights) in taps {
        let mut sums = [HALF; 3];
        for (pixel, weight) in row.chunks_exact(3).skip(*first).zip(weights) {
            sums.iter_mut().zip(pixel).for_each(|(sum, v)| *sum += i32::from(*v) * weight);
        }
        out.extend(sums.map(byte));
    }
    out
}

/// All columns, row by row of `line` bytes.
fn down(rgb: &[u8], line: usize, taps: &[Rounded]) -> Vec<u8> {
    let mut out = Vec::with_capacity(taps.len() * line);
    for (first, weights) in taps {
        let mut sums = vec![HALF; line];
        for (row, weight) in rgb.chunks_exact(line).skip(*first).zip(weights) {
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += i32::from(*v) * weight);
        }
        out.extend(sums.into_iter().map(byte));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_all_of_it_and_even() {
        for (from, to) in [(7, 3), (3, 7), (5, 5), (1, 4), (4, 1), (518, 16)] {
            for taps in taps(from, to) {
                assert!((taps.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                assert!(taps.first + taps.weights.len() <= from);
            }
        }
        let same: Vec<f64> = taps(5, 5)[2].weights.clone();
        assert!(same.iter().filter(|w| w.abs() > 1e-9).count() == 1, "{same:?}");
    }

    #[test]
    fn one_colour_stays_one() {
        let picture = Picture::filled(9, 5, [0, 255, 77]).unwrap();
        let other = picture.resized_bicubic(4, 13).unwrap();
        assert_eq!(other, Picture::filled(4, 13, [0, 255, 77]).unwrap());
    }
}
