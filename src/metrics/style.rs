//! Style: how much pictures are in the style of those that were trained from (CSD; Somepalli et al.
//! 2024).

use super::metric::{Metric, Sample, mean};

/// Mean cosine over all pairs of a generated picture and one that was trained from, in CSD's space
/// of styles.
pub struct Style;

impl Metric for Style {
    fn name(&self) -> &'static str {
        "csd"
    }

    fn meaning(&self) -> &'static str {
        "mean cosine of styles to the pictures that were trained from, by CSD: more is more alike"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        mean(sample.style.pairs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Embedding, Seen};

    #[test]
    fn scores_by_hand() {
        let [x, back] = [[2.0, 0.0], [-1.0, 0.0]].map(|v| Embedding::new(v.to_vec()));
        let (made, trained_on) = ([x.clone()], [x, back]);
        let style = Seen { made: &made, trained_on: &trained_on };
        assert_eq!(Style.score(&Sample { style, ..Sample::default() }), Some(0.0));
    }
}
