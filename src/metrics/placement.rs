//! Placement: whether those who were placed stand where they were placed.

use super::likeness::closest;
use super::metric::{Metric, Sample, mean};

/// The share of places that look most like the concept that should be there.
pub struct Placement;

impl Metric for Placement {
    fn name(&self) -> &'static str {
        "placement"
    }

    fn meaning(&self) -> &'static str {
        "share of places that look most like who should stand there: 1 is all of them"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        let right = |likeness: &[f64], expected| closest(likeness) == Some(expected);
        let places = sample.places.iter();
        mean(places.map(|place| f64::from(u8::from(right(&place.likeness, place.expected)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Place;

    #[test]
    fn scores_by_hand() {
        let places = [([0.9, 0.2], 0), ([0.9, 0.2], 1), ([0.1, 0.2], 1), ([0.3, 0.2], 1)]
            .map(|(likeness, expected)| Place { likeness: likeness.into(), expected });
        let sample = Sample { places: &places, ..Sample::default() };
        assert_eq!(Placement.score(&sample), Some(0.5));
        assert_eq!(Placement.score(&Sample::default()), None);
    }
}
