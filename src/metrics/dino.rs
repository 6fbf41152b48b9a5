//! DINO's image alignment: how much pictures look like those that the concept was trained from, to
//! a tower that never read (Ruiz et al. 2023, who score identity with it).

use super::metric::{Metric, Sample, mean};

/// Mean cosine over all pairs of a generated picture and one that was trained from, as DINO's
/// ViT-S/16 sees them.
pub struct Dino;

impl Metric for Dino {
    fn name(&self) -> &'static str {
        "dino"
    }

    fn meaning(&self) -> &'static str {
        "mean cosine to the pictures that were trained from, by DINO: more is more of the concept"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        mean(sample.dino.pairs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Embedding, Seen};

    #[test]
    fn scores_by_hand() {
        let [x, y] = [[2.0, 0.0], [0.0, 3.0]].map(|v| Embedding::new(v.to_vec()));
        let (made, trained_on) = ([x.clone()], [x, y]);
        let dino = Seen { made: &made, trained_on: &trained_on };
        assert_eq!(Dino.score(&Sample { dino, ..Sample::default() }), Some(0.5));
        assert_eq!(Dino.score(&Sample::default()), None);
    }
}
