//! Which concepts read the same directions of a layer's inputs, so that their changes do not simply
//! add up.

use std::collections::BTreeMap;

use crate::concept::{Lora, Network};
use crate::training::step::Method;

use super::members::FusedConcept;

/// Products of unit vectors below this count as rounding.
const SAME: f64 = 0.01;

/// What is to be known of a sum of concepts, in sentences for the user: those that were not taught
/// for it, and those that share directions.
pub(super) fn of_sums(members: &[FusedConcept]) -> Vec<String> {
    if members.len() < 2 {
        return Vec::new();
    }
    let orthogonal = Method::Orthogonal.to_string();
    let (taught, others): (Vec<_>, Vec<_>) = members
        .iter()
        .partition(|member| member.concept.metadata.get("mos_method") == Some(&orthogonal));
    let mut notes = Vec::new();
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|member| member.name.as_str()).collect();
        notes.push(format!(
            "not taught with the method {orthogonal}: {}; in a sum their changes act on each \
                other's inputs, and on those of all others",
            names.join(", ")
        ));
    }
    for (i, a) in taught.iter().enumerate() {
        for b in &taught[i + 1..] {
            let shared: Vec<String> = shared(a, b)
                .into_iter()
                .map(|(width, count)| format!("{count:.1} of width {width}"))
                .collect();
            if !shared.is_empty() {
                notes.push(format!(
                    "`{}` and `{}` share directions ({}): in a sum they act on each other; one of \
                        them taught under another name has others",
                    a.name,
                    b.name,
                    shared.join(", ")
                ));
            }
        }
    }
    notes
}

/// How many directions two concepts share, at most, in layers of each width.
fn shared(a: &FusedConcept, b: &FusedConcept) -> BTreeMap<usize, f64> {
    let mut found = BTreeMap::new();
    for network in Network::ALL {
        let (own, theirs) = (a.updates.of(network), b.updates.of(network));
        for (layer, update) in &own.layers {
            let both = update.lora().zip(theirs.layers.get(layer).and_then(|other| other.lora()));
            let Some((own, theirs)) = both else { continue };
            let count = along(own, theirs);
            if count > SAME {
                let most = found.entry(own.down.shape.channels()).or_insert(0.0f64);
                *most = most.max(count);
            }
        }
    }
    found
}

/// The squares of the cosines between the rows of both, added up.
fn along(a: &Lora, b: &Lora) -> f64 {
    let width = a.down.shape.channels();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let rows = |lora: &'_ Lora| -> Vec<Vec<f32>> {
        lora.down.values().chunks_exact(width.max(1)).map(<[f32]>::to_vec).collect()
    };
    let (own, theirs) = (rows(a), rows(b));
    let mut sum = 0.0;
    for x in &own {
        for y in &theirs {
            let sizes = dot(x, x) * dot(y, y);
            if sizes > 0.0 {
                sum += dot(x, y).powi(2) / sizes;
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Array;

    #[test]
    fn directions_are_counted() {
        let lora = |rows: &[f32]| Lora {
            down: Array::f32([rows.len() / 4, 4], rows.to_vec()),
            up: Array::f32([1, rows.len() / 4], vec![1.0; rows.len() / 4]),
        };
        let a = lora(&[1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
        let apart = lora(&[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
        let half = lora(&[0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        assert_eq!((along(&a, &apart), along(&a, &half), along(&a, &a)), (0.0, 1.0, 2.0));
    }
}
