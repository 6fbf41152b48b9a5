//! What all metrics have in common: what they score, and scores by their names.

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Embedding;
use crate::picture::Picture;

/// A way to score pictures.
pub trait Metric: Sync {
    /// What its score is called, in reports and in JSON: `text`.
    fn name(&self) -> &'static str;

    /// What its score says, and which is better: one sentence, for people.
    fn meaning(&self) -> &'static str;

    /// The score; none where the sample has nothing that it takes.
    fn score(&self, sample: &Sample) -> Option<f64>;
}

/// Generated pictures, and what there is to compare them with. What is left empty leaves out the
/// metrics that take it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'a> {
    /// The pictures as they are.
    pub pictures: &'a [Picture],
    /// The same as the vision tower sees them.
    pub seen: &'a [Embedding],
    /// For each of `seen`, what it was asked to show.
    pub texts: &'a [Embedding],
    /// The pictures that the concept was trained from.
    pub trained_on: &'a [Embedding],
    /// For each of `pictures`, another model's of the same request and seed.
    pub others: &'a [Picture],
    /// The same as the vision tower sees them.
    pub others_seen: &'a [Embedding],
    /// Places in the pictures where somebody should be.
    pub places: &'a [Place],
    /// Those of each picture beside each other.
    pub comparisons: &'a [Comparison],
    /// As DINO's tower sees pictures.
    pub dino: Seen<'a>,
    /// As a DINOv2 tower sees them.
    pub dinov2: Seen<'a>,
    /// As CSD's tower sees their styles.
    pub style: Seen<'a>,
}

/// Pictures as one tower sees them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// Those that were generated.
    pub made: &'a [Embedding],
    /// Those that the concept was trained from.
    pub trained_on: &'a [Embedding],
}

impl Seen<'_> {
    /// The cosine of each generated picture to each one that was trained from.
    pub(super) fn pairs(&self) -> impl Iterator<Item = f64> {
        self.made.iter().flat_map(|a| self.trained_on.iter().map(|b| a.cosine(b)))
    }
}

/// A place in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// How much it looks like each concept: [`Likeness::of_part`](super::Likeness::of_part).
    pub likeness: Vec<f64>,
    /// The number of the concept that should be there.
    pub expected: usize,
}

/// Those of one picture beside each other. Rows are places, columns those who should be there, both
/// in the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// How much each place looks like each of them.
    pub found: Vec<Vec<f64>>,
    /// How much each one's own pictures look like each one's.
    pub expected: Vec<Vec<f64>>,
}

/// Scores by the names of their metrics, in the order of [`METRICS`](super::METRICS). As JSON an
/// object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores(Vec<(&'static str, f64)>);

impl Scores {
    /// Of those of `metrics` that the sample has something for.
    pub fn of(metrics: &[&dyn Metric], sample: &Sample) -> Scores {
        let score = |metric: &&dyn Metric| Some((metric.name(), metric.score(sample)?));
        Scores(metrics.iter().filter_map(score).collect())
    }

    /// The score of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.iter().find(|(known, _)| *known == name).map(|(_, score)| score)
    }

    /// All of them: name and score.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().copied()
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.iter().try_for_each(|(name, score)| map.serialize_entry(name, &score))?;
        map.end()
    }
}

/// The mean; none of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}
