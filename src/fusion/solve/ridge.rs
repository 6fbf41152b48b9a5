//! The ridge, chosen by measurement: at the knee between what the concepts gain and what the base
//! model loses.

use faer::Mat;
use serde::Serialize;

use super::gathered::{Gathered, Target};
use super::inverse::Sums;
use super::{Change, Exact, Group, Towards, energy, exact, inner};
use crate::fusion::Result;
use crate::watch::{Progress, Watch, heed};

/// One ridge that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RidgePoint {
    /// A part of the mean diagonal.
    pub ridge: f64,
    /// What it pulls to.
    pub towards: Towards,
    /// What the concepts still miss: sum || X_i (T_i - D)^T ||^2 over what they would miss if
    /// nothing changed; of inputs from other seeds and prompts, where those were recorded.
    pub missed: f64,
    /// The same of the very inputs that were solved with.
    pub fitted: f64,
    /// What ordinary prompts that were not used for solving lose: || X D^T ||^2 over what the
    /// concepts' own changes would do there on average.
    pub lost: f64,
}

/// The ridge of a stage, and what it was chosen from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RidgeChoice {
    /// In parts of the mean diagonal.
    pub ridge: f64,
    /// What it pulls to.
    pub towards: Towards,
    /// Whether what concepts miss was measured on inputs that were not solved with.
    pub held_out: bool,
    /// Empty where the ridge was given.
    pub points: Vec<RidgePoint>,
    /// The layers that were measured, by the first of each group.
    pub measured: Vec<String>,
}

impl RidgeChoice {
    /// Not chosen.
    pub(in crate::fusion) fn given(ridge: f64, towards: Towards) -> RidgeChoice {
        RidgeChoice { ridge, towards, held_out: false, points: Vec::new(), measured: Vec::new() }
    }
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
/// smaller ridge costs the base model more than the concepts gain, a larger one the opposite. Where
/// concepts have inputs from other seeds and prompts, what is missed is measured on those: on the
/// very inputs that are solved with, the smallest ridge seems best, however little it is elsewhere.
/// Ridges towards the base weights are tried and such towards the mean of the changes, unless
/// `exact` says which: what concepts have in common needs no inputs to be kept. `watch` is told of the groups that are measured.
///
/// # Errors
/// Statistics that cannot be read; [`Error::Cancelled`](crate::fusion::Error::Cancelled).
pub fn choose(groups: &[&dyn Group], exact: Exact, watch: &mut Watch) -> Result<RidgeChoice> {
    let chosen: Vec<&dyn Group> = spread(groups);
    let both = [Towards::Base, Towards::Average];
    let ways: Vec<Towards> =
        both.into_iter().filter(|way| exact.towards.is_none_or(|only| only == *way)).collect();
    let tried: Vec<(Towards, f64)> =
        ways.iter().flat_map(|way| candidates().map(|ridge| (*way, ridge))).collect();
    let mut sums: Vec<Option<[f64; 3]>> = tried.iter().map(|_| Some([0.0; 3])).collect();
    let (mut wanted, mut reference, mut wanted_elsewhere) = (0.0, 0.0, 0.0);
    let mut held_out = true;
    for (done, group) in chosen.iter().enumerate() {
        heed(watch(Progress::new("ridge", done, chosen.len())))?;
        let gathered = Gathered::of(*group, exact.keep_weight)?;
        wanted += gathered.targets.iter().map(|t| t.energy).sum::<f64>();
        reference += gathered.targets.iter().map(|t| t.held_out_energy).sum::<f64>();
        let elsewhere = Gathered::held_out(*group)?;
        held_out &= elsewhere.is_some();
        let targets = elsewhere.iter().flat_map(|elsewhere| &elsewhere.targets);
        wanted_elsewhere += targets.map(|t| t.energy).sum::<f64>();
        let decomposed = Sums::of(&gathered, false)?;
        for ((way, ridge), sum) in tried.iter().zip(&mut sums) {
            let inverse = decomposed.inverse(ridge * gathered.mean_diagonal);
            let measured =
                inverse.map(|inverse| measure(&gathered, elsewhere.as_ref(), &inverse, *way));
            *sum = sum.zip(measured).map(|(sum, more)| std::array::from_fn(|i| sum[i] + more[i]));
        }
    }
    let measured = chosen.iter().map(|group| group.name().to_string()).collect();
    let held_out = held_out && wanted_elsewhere > 0.0;
    // Of what is solved with alone, no ridge at all would miss least.
    if wanted <= 0.0 || reference <= 0.0 && !held_out {
        let towards = exact.towards.unwrap_or_default();
        return Ok(RidgeChoice { measured, ..RidgeChoice::given(WITHOUT_MEASUREMENT, towards) });
    }
    let reference = if reference > 0.0 { reference } else { 1.0 };
    let point = |((towards, ridge), sum): (&(Towards, f64), Option<[f64; 3]>)| {
        let [fitted, lost, missed] = sum?;
        let fitted = fitted / wanted;
        let missed = if held_out { missed / wanted_elsewhere } else { fitted };
        let (ridge, towards) = (*ridge, *towards);
        Some(RidgePoint { ridge, towards, missed, fitted, lost: lost / reference })
    };
    let points: Vec<RidgePoint> = tried.iter().zip(sums).filter_map(point).collect();
    let cost = |point: &RidgePoint| point.missed + LOSS_WEIGHT * point.lost;
    let least = |way: Towards| {
        let own = points.iter().filter(|point| point.towards == way);
        own.map(cost).fold(f64::INFINITY, f64::min)
    };
    let towards = ways.iter().copied().min_by(|a, b| least(*a).total_cmp(&least(*b)));
    let towards = towards.unwrap_or_default();
    let mut own = points.iter().rev().filter(|point| point.towards == towards);
    let best = own.find(|point| cost(point) <= least(towards) * (1.0 + FLAT));
    let ridge = best.map_or(WITHOUT_MEASUREMENT, |point| point.ridge);
    Ok(RidgeChoice { ridge, towards, held_out, points, measured })
}

/// What the concepts miss, what held-out inputs lose, and what the concepts miss on inputs of their
/// own that were kept aside, as sums of squares.
fn measure(
    gathered: &Gathered,
    elsewhere: Option<&Gathered>,
    inverse: &super::inverse::Inverse,
    towards: Towards,
) -> [f64; 3] {
    let mut result = [0.0; 3];
    // sum_i || X_i (T_i - D)^T ||^2 = e - 2 tr D B^T + tr D G D^T
    let missed = |target: &Target, change: &Change, seen: &Mat<f64>| {
        let narrow = change.left.transpose() * &target.up;
        let along = &change.right * target.down_gram.transpose();
        (target.energy - 2.0 * inner(&narrow, &along) + energy(&change.left, seen)).max(0.0)
    };
    for (at, target) in gathered.targets.iter().enumerate() {
        let change = exact::change(gathered, target, inverse, towards);
        let mut seen = gathered.inputs.quadratic(&change.right);
        if let Some((keep, factor)) = &gathered.keep {
            seen -= keep.quadratic(&change.right) * faer::Scale(*factor);
        }
        result[0] += missed(target, &change, &seen);
        if let Some(held_out) = &gathered.held_out {
            result[1] += energy(&change.left, &held_out.quadratic(&change.right));
        }
        let there = elsewhere.and_then(|there| Some((there, there.targets.get(at)?)));
        if let Some((there, target)) = there {
            result[2] += missed(target, &change, &there.inputs.quadratic(&change.right));
        }
    }
    result
}

fn spread<'a>(groups: &[&'a dyn Group]) -> Vec<&'a dyn Group> {
    let count = groups.len().min(MOST_MEASURED);
    (0..count).filter_map(|i| groups.get(i * groups.len() / count).copied()).collect()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::{Factors, Layer};
    use super::*;
    use crate::fusion::statistics::Statistics;
    use crate::unwatched;

    /// Two concepts of few inputs each, and others of the same kind.
    struct Few {
        layers: [Layer; 1],
        aside: bool,
    }

    const WIDTH: usize = 24;

    /// Numbers in -1..1, with a direction that each concept's inputs have in common.
    fn inputs(concept: usize, from: usize) -> Statistics {
        let draw = |i: usize| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0;
        let row = |r: usize| {
            (0..WIDTH).map(move |c| {
                let common = if c % 2 == concept { 1.5 } else { 0.3 };
                common + draw((from + r) * WIDTH + c + 5000 * concept)
            })
        };
        Statistics::from_samples(WIDTH, (0..10).flat_map(row).collect())
    }

    impl Group for Few {
        fn name(&self) -> &str {
            "few"
        }

        fn width(&self) -> usize {
            WIDTH
        }

        fn layers(&self) -> &[Layer] {
            &self.layers
        }

        fn weights(&self) -> &[f64] {
            &[1.0, 1.0]
        }

        fn inputs(&self, index: usize) -> Result<Cow<'_, Statistics>> {
            Ok(Cow::Owned(inputs(index, 0)))
        }

        fn held_out(&self, index: usize) -> Result<Option<Cow<'_, Statistics>>> {
            Ok(self.aside.then(|| Cow::Owned(inputs(index, 300))))
        }

        fn change(&self, index: usize, _: usize) -> Option<Factors> {
            let value = |i: usize, j: usize| (((i + 3 * j + 11 * index) * 37) % 17) as f64 - 8.0;
            Some(Factors {
                up: Mat::from_fn(6, 2, value),
                down: Mat::from_fn(2, WIDTH, |i, j| value(j, i)),
            })
        }

        fn keep(&self) -> Result<[Option<Cow<'_, Statistics>>; 2]> {
            Ok([None, Some(Cow::Owned(inputs(1, 600)))])
        }
    }

    #[test]
    fn what_was_kept_aside_asks_for_a_larger_ridge_and_is_answered_better_by_it() {
        let few = |aside| {
            let layers = [Layer { name: "few".into(), out: 6 }];
            Few { layers, aside }
        };
        let base = Exact { towards: Some(Towards::Base), keep_weight: 0.0, ..Exact::default() };
        let choice = |aside| choose(&[&few(aside)], base, &mut unwatched).unwrap();
        let (own, other) = (choice(false), choice(true));
        assert!(!own.held_out && other.held_out);
        assert!(other.ridge > own.ridge, "{} {}", other.ridge, own.ridge);
        let at = |ridge: f64| other.points.iter().find(|point| point.ridge == ridge).unwrap();
        assert!(at(other.ridge).missed < at(own.ridge).missed);
        assert!(at(other.ridge).fitted > at(own.ridge).fitted);
        // The figure of what is solved with is the same either way.
        let fitted =
            |choice: &RidgeChoice| choice.points.iter().map(|p| p.fitted).collect::<Vec<_>>();
        assert_eq!(fitted(&own), fitted(&other));
        assert!(own.points.iter().all(|point| point.missed == point.fitted));
        // Either way, if nothing says which, the better one is taken.
        let exact = Exact { keep_weight: 0.0, ..Exact::default() };
        let free = choose(&[&few(true)], exact, &mut unwatched).unwrap();
        let chosen =
            free.points.iter().find(|p| (p.ridge, p.towards) == (free.ridge, free.towards));
        assert_eq!(free.points.len(), 2 * other.points.len());
        assert!(chosen.unwrap().missed <= at(other.ridge).missed * 1.01);
    }

    #[test]
    fn towards_the_mean_is_between_the_mean_and_the_answer_without_a_ridge() {
        let layers = [Layer { name: "few".into(), out: 6 }];
        let group = Few { layers, aside: false };
        let solved = |solver, ridge| {
            let solution = super::super::solve(&group, solver, ridge, &mut unwatched).unwrap();
            solution.changes[0].whole()
        };
        let exact = super::super::Solver::Exact(Exact { keep_weight: 0.0, ..Exact::default() });
        let mean = solved(super::super::Solver::Average, (0.0, Towards::Base));
        let stiff = solved(exact, (1e9, Towards::Average));
        assert!((&stiff - &mean).norm_max() < 1e-6 * mean.norm_max());
        assert!(solved(exact, (1e9, Towards::Base)).norm_max() < 1e-6 * mean.norm_max());
        // Where inputs tell, both answer alike: X (D - D')^T vanishes with the ridge.
        let [a, b] = [Towards::Average, Towards::Base].map(|way| solved(exact, (1e-9, way)));
        let inputs = Gathered::of(&group, 0.0).unwrap().inputs;
        let difference = &a - &b;
        let seen = inputs.quadratic(&difference);
        assert!(seen.norm_max() < 1e-6 * inputs.quadratic(&a).norm_max());
    }
}
