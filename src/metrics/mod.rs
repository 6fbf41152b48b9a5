//! How well pictures show what was asked for.
//!
//! A [`Metric`] has a name and scores a [`Sample`]; [`METRICS`] lists them all, and [`scores`] asks
//! those that a sample has something for. What texts and pictures are in the space that both share,
//! CLIP's two towers tell ([`Towers`]): the model's own where it brings both, so figures compare
//! within one model, not between models. As Mix-of-Show scores its concepts (section 4.1), with
//! texts in which the concept's words give way to the class word: [`Evaluation`].

mod embedding;
mod evaluate;
mod image_alignment;
mod likeness;
mod metric;
mod pixels;
mod placement;
mod resemblance;
mod text_alignment;
mod towers;

pub use embedding::Embedding;
pub use evaluate::{Error as EvaluationError, Evaluation};
pub use image_alignment::ImageAlignment;
pub use likeness::{Likeness, closest};
pub use metric::{Metric, Place, Sample, Scores};
pub use pixels::Pixels;
pub use placement::Placement;
pub use resemblance::Resemblance;
pub use text_alignment::TextAlignment;
pub use towers::{Error, Result, Towers};

/// All metrics, in the order in which scores are reported.
pub const METRICS: [&dyn Metric; 5] =
    [&TextAlignment, &ImageAlignment, &Resemblance, &Pixels, &Placement];

/// The scores of a sample, by all metrics that it has something for.
pub fn scores(sample: &Sample) -> Scores {
    Scores::of(&METRICS, sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_have_names_of_their_own() {
        let names: std::collections::BTreeSet<_> = METRICS.iter().map(|m| m.name()).collect();
        assert_eq!(names.len(), METRICS.len());
        let x = [Embedding::new(vec![1.0, 0.0])];
        let found = scores(&Sample { seen: &x, texts: &x, trained_on: &x, ..Sample::default() });
        assert_eq!(serde_json::to_string(&found).unwrap(), r#"{"text":2.5,"image":1.0}"#);
        assert_eq!((found.get("image"), found.get("pixels")), (Some(1.0), None));
    }
}
