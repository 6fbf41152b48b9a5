//! Image alignment: how much pictures look like those that the concept was trained from.

use super::metric::{Metric, Sample, mean};

/// Mean cosine over all pairs of a generated picture and one that was trained from.
pub struct ImageAlignment;

impl Metric for ImageAlignment {
    fn name(&self) -> &'static str {
        "image"
    }

    fn meaning(&self) -> &'static str {
        "mean cosine to the pictures that were trained from: more is more of the concept"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        mean(sample.seen.iter().flat_map(|a| sample.trained_on.iter().map(|b| a.cosine(b))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Embedding;

    #[test]
    fn scores_by_hand() {
        let [x, y, diagonal] =
            [[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]].map(|v| Embedding::new(v.to_vec()));
        let (seen, trained_on) = ([x.clone(), y], [x, diagonal]);
        let sample = Sample { seen: &seen, trained_on: &trained_on, ..Sample::default() };
        let expected = (1.0 + 0.0 + 2.0 * 0.5f64.sqrt()) / 4.0;
        assert!((ImageAlignment.score(&sample).unwrap() - expected).abs() < 1e-6);
        assert_eq!(ImageAlignment.score(&Sample { seen: &[], ..sample }), None);
    }
}
