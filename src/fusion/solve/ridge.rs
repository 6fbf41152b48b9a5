//! The ridge, chosen by measurement: at the knee between what the concepts gain and what the base
//! model loses.

use serde::Serialize;

use super::gathered::Gathered;
use super::inverse::Sums;
use super::{Group, energy, exact, inner};
use crate::fusion::Result;
use crate::watch::{Progress, Watch, heed};

/// One ridge that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RidgePoint {
    /// A part of the mean diagonal.
    pub ridge: f64,
    /// What the concepts still miss: sum || X_i (T_i - D)^T ||^2 over what they would miss if
    /// nothing changed.
    pub missed: f64,
    /// What ordinary prompts that were not used for solving lose: || X D^T ||^2 over what the
    /// concepts' own changes would do there on average.
    pub lost: f64,
}

/// The ridge of a stage, and what it was chosen from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RidgeChoice {
    /// In parts of the mean diagonal.
    pub ridge: f64,
    /// Empty where the ridge was given.
    pub points: Vec<RidgePoint>,
    /// The layers that were measured, by the first of each group.
    pub measured: Vec<String>,
}

/// Groups that are measured: evenly spread over the network.
const MOST_MEASURED: usize = 8;
/// Where there is nothing to measure the base model's loss with.
const WITHOUT_MEASUREMENT: f64 = 1e-4;
/// How much a part that ordinary prompts lose counts against a part that the concepts gain.
/// Concepts are what a user fuses for: where their updates were strong, a half left little more of
/// them than averaging does (docs/fusion.md).
const LOSS_WEIGHT: f64 = 0.1;
/// By what part costs may differ and count as the same: of such ridges the largest is taken. Where
/// the cost was flat over decades, the smallest one's pictures were 0.01 more like the concepts and
/// 0.10 less like the base model's (docs/fusion.md).
const FLAT: f64 = 0.005;

/// 1e-7 to 1 in half decades.
fn candidates() -> impl Iterator<Item = f64> {
    (-14..=0).map(|half| 10f64.powf(f64::from(half) / 2.0))
}

/// Chooses one ridge for all groups of a stage: the largest of those where missed + 0.1 lost
/// is least within 0.5 %, summed over groups that are evenly spread. That is the knee: a
/// smaller ridge costs the base model more than the concepts gain, a larger one the opposite.
/// `keep_weight`: as in [`Exact`](super::Exact). `watch` is told of the groups that are measured.
///
/// # Errors
/// Statistics that cannot be read; [`Error::Cancelled`](crate::fusion::Error::Cancelled).
pub fn choose(groups: &[&dyn Group], keep_weight: f64, watch: &mut Watch) -> Result<RidgeChoice> {
    let chosen: Vec<&dyn Group> = spread(groups);
    let mut sums: Vec<Option<[f64; 2]>> = candidates().map(|_| Some([0.0; 2])).collect();
    let (mut wanted, mut reference) = (0.0, 0.0);
    for (done, group) in chosen.iter().enumerate() {
        heed(watch(Progress::new("ridge", done, chosen.len())))?;
        let gathered = Gathered::of(*group, keep_weight)?;
        wanted += gathered.targets.iter().map(|t| t.energy).sum::<f64>();
        reference += gathered.targets.iter().map(|t| t.held_out_energy).sum::<f64>();
        let decomposed = Sums::of(&gathered, false)?;
        for (ridge, sum) in candidates().zip(&mut sums) {
            let inverse = decomposed.inverse(ridge * gathered.mean_diagonal);
            let measured = inverse.map(|inverse| measure(&gathered, &inverse));
            *sum = sum.zip(measured).map(|(sum, [missed, lost])| [sum[0] + missed, sum[1] + lost]);
        }
    }
    let measured = chosen.iter().map(|group| group.name().to_string()).collect();
    if wanted <= 0.0 || reference <= 0.0 {
        return Ok(RidgeChoice { ridge: WITHOUT_MEASUREMENT, points: Vec::new(), measured });
    }
    let point = |(ridge, sum): (f64, Option<[f64; 2]>)| {
        let [missed, lost] = sum?;
        Some(RidgePoint { ridge, missed: missed / wanted, lost: lost / reference })
    };
    let points: Vec<RidgePoint> = candidates().zip(sums).filter_map(point).collect();
    let cost = |point: &RidgePoint| point.missed + LOSS_WEIGHT * point.lost;
    let least = points.iter().map(cost).fold(f64::INFINITY, f64::min);
    let best = points.iter().rev().find(|point| cost(point) <= least * (1.0 + FLAT));
    let ridge = best.map_or(WITHOUT_MEASUREMENT, |point| point.ridge);
    Ok(RidgeChoice { ridge, points, measured })
}

/// What the concepts miss and what held-out inputs lose, as sums of squares.
fn measure(gathered: &Gathered, inverse: &super::inverse::Inverse) -> [f64; 2] {
    let mut result = [0.0; 2];
    for target in &gathered.targets {
        let change = exact::change(target, inverse);
        // sum_i || X_i (T_i - D)^T ||^2 = e - 2 tr D B^T + tr D (G - k G_keep) D^T
        let narrow = change.left.transpose() * &target.up;
        let along = &change.right * target.down_gram.transpose();
        let mut seen = gathered.inputs.quadratic(&change.right);
        if let Some((keep, factor)) = &gathered.keep {
            seen -= keep.quadratic(&change.right) * faer::Scale(*factor);
        }
        result[0] +=
            (target.energy - 2.0 * inner(&narrow, &along) + energy(&change.left, &seen)).max(0.0);
        if let Some(held_out) = &gathered.held_out {
            result[1] += energy(&change.left, &held_out.quadratic(&change.right));
        }
    }
    result
}

fn spread<'a>(groups: &[&'a dyn Group]) -> Vec<&'a dyn Group> {
    let count = groups.len().min(MOST_MEASURED);
    (0..count).filter_map(|i| groups.get(i * groups.len() / count).copied()).collect()
}
