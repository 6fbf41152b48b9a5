//! How well pictures show what was asked for.
//!
//! A [`Metric`] has a name and scores a [`Sample`]; [`METRICS`] lists them all, and [`scores`] asks
//! those that a sample has something for. What texts and pictures are in the space that both share,
//! CLIP's two towers tell ([`Towers`]): the model's own where it brings both, so figures compare
//! within one model, not between models. As Mix-of-Show scores its concepts (section 4.1), with
//! texts in which the concept's words give way to the class word: [`Evaluation`].

mod agreement;
mod detect_and_compare;
mod dino;
mod dinov2;
mod embedding;
mod error;
mod evaluate;
mod eye;
mod image_alignment;
mod likeness;
mod margin;
mod metric;
mod part;
mod pixels;
mod placement;
mod positions;
mod preparation;
mod resemblance;
mod style;
pub mod survey;
mod text_alignment;
mod towers;
mod vision;

pub use agreement::{Agreement, Pairs};
pub use detect_and_compare::DetectAndCompare;
pub use dino::Dino;
pub use dinov2::DinoV2;
pub use embedding::Embedding;
pub use error::{Error, Result};
pub use evaluate::{Error as EvaluationError, Evaluation};
pub use eye::Eye;
pub use image_alignment::ImageAlignment;
pub use likeness::{Likeness, closest};
pub use margin::Margin;
pub use metric::{Comparison, Metric, Place, Sample, Scores, Seen};
pub use part::Part;
pub use pixels::Pixels;
pub use placement::Placement;
pub use resemblance::Resemblance;
pub use style::Style;
pub use text_alignment::TextAlignment;
pub use towers::Towers;
pub use vision::VisionTower;

/// All metrics, in the order in which scores are reported.
pub const METRICS: [&dyn Metric; 10] = [
    &TextAlignment,
    &ImageAlignment,
    &Dino,
    &DinoV2,
    &Style,
    &Resemblance,
    &Pixels,
    &Placement,
    &Margin,
    &DetectAndCompare,
];

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
