//! Margin: how sure it is who stands where.

use super::metric::{Metric, Place, Sample, mean};

/// By how much places look more like who should be there than like whoever else they look most
/// like, mean over places; below 0 somebody else is there.
pub struct Margin;

impl Metric for Margin {
    fn name(&self) -> &'static str {
        "margin"
    }

    fn meaning(&self) -> &'static str {
        "how much more places look like who should stand there than like the next one: more is surer"
    }

    fn score(&self, sample: &Sample) -> Option<f64> {
        mean(sample.places.iter().filter_map(margin))
    }
}

/// None where there is nobody else.
fn margin(place: &Place) -> Option<f64> {
    let own = place.likeness.get(place.expected)?;
    let others = place.likeness.iter().enumerate().filter(|(i, _)| *i != place.expected);
    let most = others.map(|(_, likeness)| *likeness).reduce(f64::max)?;
    Some(own - most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        let places = [(vec![0.9, 0.2, 0.5], 0), (vec![0.9, 0.2], 1), (vec![0.3], 0)]
            .map(|(likeness, expected)| Place { likeness, expected });
        let sample = Sample { places: &places, ..Sample::default() };
        assert!((Margin.score(&sample).unwrap() - (0.4 - 0.7) / 2.0).abs() < 1e-12);
        assert_eq!(Margin.score(&Sample { places: &places[2..], ..sample }), None);
    }
}
