//! Another concept in a layer that answers others already.
//!
//! Of those before, their inputs are known as one sum, G; what is asked is that they be answered as
//! they are, by the change D so far, and new concepts as their own LoRAs answer. D + E is looked
//! for: the least sum of w ||X E^T||^2 over those before and of w_i ||X_i (T_i - D - E)^T||^2 over
//! the new, which is E = sum_i w_i (T_i - D) G_i (G + sum_i w_i G_i + keep + ridge)^-1. Ordinary
//! prompts are to be answered as they are, too.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};

use super::{Group, LayerMeasures, energy, inner, singular};
use crate::fusion::Result;
use crate::fusion::statistics::Statistics;

/// Below this ridge, rounding may leave sums that cannot be decomposed.
const LEAST_RIDGE: f64 = 1e-7;

/// What all that came before asks of a group.
pub struct Before<'a> {
    /// Their inputs, weighted and added up ([`Statistics::add`]).
    pub inputs: &'a Statistics,
    /// The sum of their weights.
    pub weight: f64,
    /// Each layer's change so far, `[out, in]`.
    pub changes: &'a [Mat<f64>],
}

/// What comes of a group.
pub struct Grown {
    /// What is added to each layer's change, `[out, in]`.
    pub added: Vec<Mat<f64>>,
    /// How the new concepts are answered then, and how they would be by the mean of all changes.
    pub measures: [Vec<LayerMeasures>; 2],
}

/// Solves for the concepts of `group` beside those before. `ridge` is a part of the mean diagonal
/// of all sums, `keep_weight` as in [`super::Exact`].
///
/// # Errors
/// Statistics that cannot be read or solved for.
pub fn grow(group: &dyn Group, before: &Before, ridge: f64, keep_weight: f64) -> Result<Grown> {
    let (width, weights) = (group.width(), group.weights());
    let mut total = before.inputs.moments().into_gram();
    let mut own = Vec::with_capacity(weights.len());
    for (index, weight) in weights.iter().enumerate() {
        let moments = group.inputs(index)?.moments();
        total += moments.clone().into_gram() * faer::Scale(*weight);
        own.push(moments);
    }
    let trace = |m: &Mat<f64>| (0..width).map(|k| m[(k, k)]).sum::<f64>();
    let all = before.weight + weights.iter().sum::<f64>();
    if keep_weight > 0.0
        && let [Some(kept), _] = group.keep()?
    {
        let gram = kept.moments().into_gram();
        let of_kept = trace(&gram);
        if of_kept > 0.0 {
            let factor = keep_weight * trace(&total) / all / of_kept;
            total += gram * faer::Scale(factor);
        }
    }
    let ridge = ridge.max(LEAST_RIDGE);
    let lift = ridge * trace(&total) / width.max(1) as f64;
    (0..width).for_each(|k| total[(k, k)] += lift);
    let decomposed = total.llt(Side::Lower);
    let decomposed = decomposed.map_err(|_| singular(group.name(), width, ridge))?;
    let mut grown = Grown { added: Vec::new(), measures: [Vec::new(), Vec::new()] };
    for (number, layer) in group.layers().iter().enumerate() {
        let nothing = Mat::zeros(layer.out, width);
        let now = before.changes.get(number).unwrap_or(&nothing);
        let changes: Vec<_> = (0..weights.len()).map(|i| group.change(i, number)).collect();
        let differ: Vec<Mat<f64>> = changes
            .iter()
            .map(|change| match change {
                Some(change) => &change.up * &change.down - now,
                None => now * faer::Scale(-1.0),
            })
            .collect();
        let mut wanted = Mat::<f64>::zeros(layer.out, width);
        let mut mean = Mat::<f64>::zeros(layer.out, width);
        for ((differ, moments), weight) in differ.iter().zip(&own).zip(weights) {
            wanted += moments.times(differ) * faer::Scale(*weight);
            mean += differ * faer::Scale(*weight / all);
        }
        let added = decomposed.solve(wanted.transpose()).transpose().to_owned();
        for (measures, by) in grown.measures.iter_mut().zip([&added, &mean]) {
            let mut measured = LayerMeasures::nothing(&layer.name, weights.len());
            for (i, ((differ, moments), change)) in
                differ.iter().zip(&own).zip(&changes).enumerate()
            {
                let missed = differ - by;
                let missed = inner(&moments.times(&missed), &missed).max(0.0);
                let wanted = change
                    .as_ref()
                    .map_or(0.0, |change| energy(&change.up, &moments.quadratic(&change.down)));
                measured.set(i, [missed, wanted]);
            }
            measures.push(measured);
        }
        grown.added.push(added);
    }
    Ok(grown)
}
