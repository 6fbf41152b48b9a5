//! Pixels: how far pictures are from another model's of the same requests.

use super::metric::{Metric, Sample, mean};
use crate::picture::Picture;

/// Root of the mean squared difference of pixels in 0..1, mean over pictures.
pub struct Pixels;

impl Metric for Pixels {
    fn name(&self) -> &'static str {
        "pixels"
    }

    fn meaning(&self) -> &'static str {
        "root mean squared difference, 0 to 1, from the other model's pixels: 0 is the same picture"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        mean(sample.pictures.iter().zip(sample.others).map(|(a, b)| difference(a, b)))
    }
}

fn difference(a: &Picture, b: &Picture) -> f64 {
    let pairs = a.rgb().iter().zip(b.rgb());
    let squares = pairs.map(|(a, b)| ((f64::from(*a) - f64::from(*b)) / 255.0).powi(2));
    (squares.sum::<f64>() / a.rgb().len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        let [black, white] =
            [[0; 3], [255; 3]].map(|colour| Picture::filled(2, 2, colour).unwrap());
        let (pictures, others) = ([black.clone(), black.clone()], [black, white]);
        let sample = Sample { pictures: &pictures, others: &others, ..Sample::default() };
        assert_eq!(Pixels.score(&sample), Some(0.5));
        assert_eq!(Pixels.score(&Sample::default()), None);
    }
}
