//! How well a change answers each concept, how much concepts are in each other's way, and what the
//! base model loses.

use faer::Mat;
use serde::Serialize;

use super::{Change, Group, beside, energy, inner, stack};
use crate::fusion::Result;

/// What one layer's change does. Concepts in the order of the group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerMeasures {
    /// Its full name.
    pub layer: String,
    /// || X_i (T_i - D)^T || / || X_i T_i^T ||: 0 is the concept's own answer, 1 that of the base
    /// model. None where the concept does not change the layer.
    pub residuals: Vec<Option<f64>>,
    /// || X_i (T_i - D)^T ||^2 and || X_i T_i^T ||^2, the sums behind `residuals`.
    pub energies: Vec<[f64; 2]>,
    /// The same sums on inputs from other seeds and prompts; empty where none were kept aside.
    pub held_out: Vec<[f64; 2]>,
    /// Row i, column j: how much of what concept j's change does to its own inputs it does to
    /// concept i's, per input:
    /// || X_i T_j^T ||^2 rows_j / (|| X_j T_j^T ||^2 rows_i). What i and j want alike counts as
    /// well; 0 is no contact.
    pub contact: Vec<Vec<f64>>,
    /// || X D^T ||^2 on inputs on which nothing should change that were not used, in parts of what
    /// the concepts' own changes do there on average.
    pub base_loss: Option<f64>,
}

impl LayerMeasures {
    /// Of `count` concepts, of which nothing is known yet.
    pub(in crate::fusion) fn nothing(layer: &str, count: usize) -> LayerMeasures {
        LayerMeasures {
            layer: layer.into(),
            residuals: vec![None; count],
            energies: vec![[0.0; 2]; count],
            held_out: Vec::new(),
            contact: Vec::new(),
            base_loss: None,
        }
    }

    /// What is known of the concept at `place`.
    pub(in crate::fusion) fn set(&mut self, place: usize, [missed, wanted]: [f64; 2]) {
        let known = self.residuals.get_mut(place).zip(self.energies.get_mut(place));
        if let Some((residual, energies)) = known {
            *residual = (wanted > 0.0).then(|| (missed / wanted).sqrt());
            *energies = [missed, wanted];
        }
    }
}

/// What a solution does to all layers of a group.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measures {
    /// In the order of the group.
    pub layers: Vec<LayerMeasures>,
}

impl Measures {
    /// Measures `changes`, one for each layer of the group, on the concepts' and the kept inputs.
    pub fn of(group: &dyn Group, changes: &[Change]) -> Result<Measures> {
        let (count, width) = (group.weights().len(), group.width());
        let layers = group.layers().len();
        let factors: Vec<Vec<_>> =
            (0..layers).map(|l| (0..count).map(|i| group.change(i, l)).collect()).collect();
        let mut found: Vec<LayerMeasures> =
            group.layers().iter().map(|layer| LayerMeasures::nothing(&layer.name, 0)).collect();
        let mut rows = Vec::new();
        for i in 0..count {
            let Some(aside) = group.held_out(i)? else { continue };
            let moments = aside.moments();
            for ((found, factors), change) in found.iter_mut().zip(&factors).zip(changes) {
                let energies = match factors.get(i).and_then(Option::as_ref) {
                    Some(own) => {
                        let both = stack(&[&own.down, &change.right], width);
                        let minus = &change.left * faer::Scale(-1.0);
                        let left = beside(&[&own.up, &minus], own.up.nrows());
                        let missed = energy(&left, &moments.quadratic(&both)).max(0.0);
                        [missed, energy(&own.up, &moments.quadratic(&own.down))]
                    }
                    None => [energy(&change.left, &moments.quadratic(&change.right)).max(0.0), 0.0],
                };
                found.held_out.push(energies);
            }
        }
        for i in 0..count {
            let statistics = group.inputs(i)?;
            rows.push(statistics.rows().max(1) as f64);
            let moments = statistics.moments();
            for ((found, factors), change) in found.iter_mut().zip(&factors).zip(changes) {
                // All that this concept's inputs can tell, in one product.
                let downs: Vec<&Mat<f64>> =
                    factors.iter().flatten().map(|f| &f.down).chain([&change.right]).collect();
                let seen = moments.quadratic(&stack(&downs, width));
                let (mut first, mut own, mut contact) = (0, None, Vec::new());
                for (j, factors) in factors.iter().enumerate() {
                    let Some(factors) = factors else {
                        contact.push(0.0);
                        continue;
                    };
                    let rank = factors.down.nrows();
                    let block = seen.submatrix(first, first, rank, rank).to_owned();
                    contact.push(energy(&factors.up, &block));
                    if j == i {
                        own = Some((first, rank));
                    }
                    first += rank;
                }
                let (at, size) = (first, change.right.nrows());
                let squared =
                    |first: usize, rank: usize| seen.submatrix(first, first, rank, rank).to_owned();
                let (residual, wanted) = match (own, factors.get(i).and_then(Option::as_ref)) {
                    (Some((first, rank)), Some(own)) => {
                        let mut both = Mat::zeros(rank + size, rank + size);
                        let places: Vec<usize> =
                            (first..first + rank).chain(at..at + size).collect();
                        for (a, &from_a) in places.iter().enumerate() {
                            for (b, &from_b) in places.iter().enumerate() {
                                both[(a, b)] = seen[(from_a, from_b)];
                            }
                        }
                        let minus = &change.left * faer::Scale(-1.0);
                        let left = beside(&[&own.up, &minus], own.up.nrows());
                        (energy(&left, &both).max(0.0), energy(&own.up, &squared(first, rank)))
                    }
                    _ => (energy(&change.left, &squared(at, size)).max(0.0), 0.0),
                };
                found.residuals.push((wanted > 0.0).then(|| (residual / wanted).sqrt()));
                found.energies.push([residual, wanted]);
                found.contact.push(contact);
            }
        }
        for found in &mut found {
            relate(&mut found.contact, &found.energies, &rows);
        }
        if let [_, Some(held_out)] = group.keep()? {
            let moments = held_out.moments();
            let total: f64 = group.weights().iter().sum();
            for ((found, factors), change) in found.iter_mut().zip(&factors).zip(changes) {
                let weighed =
                    factors.iter().zip(group.weights()).filter_map(|(f, w)| Some((f.as_ref()?, w)));
                let reference: f64 =
                    weighed.map(|(f, w)| w * energy(&f.up, &moments.quadratic(&f.down))).sum();
                let loss = energy(&change.left, &moments.quadratic(&change.right));
                found.base_loss = (reference > 0.0).then(|| loss * total / reference);
            }
        }
        Ok(Measures { layers: found })
    }
}

/// Turns || X_i T_j^T ||^2 into what [`LayerMeasures::contact`] says.
fn relate(contact: &mut [Vec<f64>], energies: &[[f64; 2]], rows: &[f64]) {
    for (i, row) in contact.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            let own = energies[j][1];
            *value = if own > 0.0 { *value / own * rows[j] / rows[i] } else { 0.0 };
        }
    }
}

/// Frobenius norm of a change.
pub(in crate::fusion) fn norm(change: &Change) -> f64 {
    inner(&(change.left.transpose() * &change.left), &(&change.right * change.right.transpose()))
        .max(0.0)
        .sqrt()
}
