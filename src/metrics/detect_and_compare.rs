//! Detect and compare: whether those who are in one picture are as like and unlike each other as
//! they are in their own pictures (D&C; MuDI, Jang et al. 2024, arXiv 2404.04243).

use super::metric::{Metric, Sample, mean};

/// 1 - || F - E ||^2, mean over pictures. F: how much what is found in each place looks like each of
/// those who should be in the picture; E: how much their own pictures do. Places are those that were
/// asked for: nothing is detected. Nobody mixed with anybody and nobody missing is 1.
pub struct DetectAndCompare;

impl Metric for DetectAndCompare {
    fn name(&self) -> &'static str {
        "d&c"
    }

    fn meaning(&self) -> &'static str {
        "likenesses in one picture beside those in the concepts' own: 1 mixes and lacks nobody"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        mean(sample.comparisons.iter().map(|comparison| {
            let pairs = comparison.found.iter().flatten().zip(comparison.expected.iter().flatten());
            1.0 - pairs.map(|(found, expected)| (found - expected).powi(2)).sum::<f64>()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Comparison;

    #[test]
    fn scores_by_hand() {
        let expected = vec![vec![0.9, 0.1], vec![0.1, 0.8]];
        let same = Comparison { found: expected.clone(), expected: expected.clone() };
        let mixed = Comparison { found: vec![vec![0.5, 0.1], vec![0.1, 0.3]], expected };
        let both = [same.clone(), mixed];
        let score =
            |comparisons| DetectAndCompare.score(&Sample { comparisons, ..Sample::default() });
        assert_eq!(score(&both[..1]), Some(1.0));
        assert!((score(&both).unwrap() - (1.0 + (1.0 - 0.16 - 0.25)) / 2.0).abs() < 1e-12);
        assert_eq!(score(&[]), None);
    }
}
