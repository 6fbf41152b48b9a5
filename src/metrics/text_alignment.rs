//! Text alignment: how much pictures show what they were asked to.

use super::metric::{Metric, Sample, mean};

/// CLIPScore (Hessel et al. 2021, eq. 1), mean over pictures: 2.5 times the cosine between a
/// picture and its text, and not below 0.
pub struct TextAlignment;

/// Factor of CLIPScore.
const WEIGHT: f64 = 2.5;

impl Metric for TextAlignment {
    fn name(&self) -> &'static str {
        "text"
    }

    fn meaning(&self) -> &'static str {
        "CLIPScore to the prompts with the class word: more shows more of what was asked for"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        let pairs = sample.texts.iter().zip(sample.seen);
        mean(pairs.map(|(text, seen)| WEIGHT * text.cosine(seen).max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Embedding;

    #[test]
    fn scores_by_hand() {
        let [x, y, back] =
            [[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]].map(|v| Embedding::new(v.to_vec()));
        let (texts, seen) = ([x.clone(), x.clone(), x.clone()], [x, y, back]);
        let sample = Sample { texts: &texts, seen: &seen, ..Sample::default() };
        assert!((TextAlignment.score(&sample).unwrap() - 2.5 / 3.0).abs() < 1e-6);
        assert_eq!(TextAlignment.score(&Sample { texts: &[], ..sample }), None);
    }
}
