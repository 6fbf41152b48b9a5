//! Resemblance: how much pictures show what another model's of the same requests show.

use super::metric::{Metric, Sample, mean};

/// Mean cosine between each picture and the other model's.
pub struct Resemblance;

impl Metric for Resemblance {
    fn name(&self) -> &'static str {
        "likeness"
    }

    fn meaning(&self) -> &'static str {
        "mean cosine to the other model's pictures from the same seeds: 1 shows the same"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        mean(sample.seen.iter().zip(sample.others_seen).map(|(a, b)| a.cosine(b)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Embedding;

    #[test]
    fn scores_by_hand() {
        let [x, y] = [[2.0, 0.0], [0.0, 3.0]].map(|v| Embedding::new(v.to_vec()));
        let (seen, others_seen) = ([x.clone(), y], [x.clone(), x]);
        let sample = Sample { seen: &seen, others_seen: &others_seen, ..Sample::default() };
        assert_eq!(Resemblance.score(&sample), Some(0.5));
    }
}
