//! DINOv2's image alignment.

use super::metric::{Metric, Sample, mean};

/// Mean cosine over all pairs of a generated picture and one that was trained from, as a DINOv2
/// tower sees them.
pub struct DinoV2;

impl Metric for DinoV2 {
    fn name(&self) -> &'static str {
        "dinov2"
    }

    fn meaning(&self) -> &'static str {
        "mean cosine to the pictures that were trained from, by DINOv2: more is more of the concept"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        mean(sample.dinov2.pairs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Embedding, Seen};

    #[test]
    fn scores_by_hand() {
        let [x, y] = [[2.0, 0.0], [0.0, 3.0]].map(|v| Embedding::new(v.to_vec()));
        let (made, trained_on) = ([x.clone(), y], [x]);
        let dinov2 = Seen { made: &made, trained_on: &trained_on };
        assert_eq!(DinoV2.score(&Sample { dinov2, ..Sample::default() }), Some(0.5));
    }
}
