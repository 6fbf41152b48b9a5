//! LoRACLR's contrastive objective (arXiv 2412.09622): one change for all concepts, whose answers
//! to a concept's inputs are near those of its own LoRA and not near another's.
//!
//! The distance d_ij is || X_i (D - T_j)^T || / || X_i T_i^T ||: how far the merged layer's answers
//! to concept i's inputs are from those of concept j's LoRA, in parts of what concept i changes
//! there; d_ii is the residual of the reports. The loss is the mean over the concepts of d_ii^2 +
//! max(0, margin - min_{j != i} d_ij)^2, and decay || D ||^2. It is a function of X_i^T X_i alone,
//! so no inputs are kept.
//!
//! Its authors' program compares whole recordings instead, row by row: the merged answers to X_i
//! with LoRA j's answers to X_j. That takes recordings of one size, all of them kept, and gives
//! distances that grow with the number of rows, beside which a margin of 0.5 is hardly ever
//! reached.

use std::borrow::Cow;

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};
use serde::{Deserialize, Serialize};

use super::{Change, Exact, Gathered, Group, Solution, Towards, beside, exact, inner, singular};
use crate::fusion::Result;
use crate::fusion::statistics::Moments;
use crate::watch::{Progress, Watch, heed};

/// Settings of the contrastive merger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loraclr {
    /// The solution that it starts from.
    pub start: Exact,
    /// How far the answers to a concept's inputs are to be from other concepts' answers, in parts
    /// of what the concept changes.
    pub margin: f64,
    /// How much the squares of the change's numbers count.
    pub decay: f64,
    /// Steps at most.
    pub iterations: usize,
}

impl Default for Loraclr {
    /// Margin and decay as published.
    fn default() -> Self {
        Loraclr { start: Exact::default(), margin: 0.5, decay: 0.001, iterations: 50 }
    }
}

/// Sums of inputs that are held at once, in bytes; those beyond are read again in each step, so
/// that memory does not grow with the number of concepts.
const MOST_HELD: usize = 1 << 30;
/// The least square of a distance whose root is taken.
const LEAST_SQUARE: f64 = 1e-12;
/// Decrease of the loss, in parts of it, below which the search ends.
const TOLERANCE: f64 = 1e-9;
/// The part of the decrease that the slope promises with which a step is taken, and halvings of it.
const DECREASE: f64 = 1e-4;
const HALVINGS: usize = 20;

/// From the exact solution downhill.
pub(super) fn solve(
    group: &dyn Group,
    settings: Loraclr,
    (ridge, towards): (f64, Towards),
    watch: &mut Watch,
) -> Result<Solution> {
    let start = {
        let gathered = Gathered::of(group, settings.start.keep_weight)?;
        exact::solve(&gathered, ridge, towards)?
    };
    let inputs = Inputs::of(group)?;
    let (mut changes, mut losses) = (Vec::new(), [0.0; 2]);
    for (layer, begun) in start.changes.into_iter().enumerate() {
        let Some(objective) = Objective::of(group, layer, settings, &inputs)? else {
            changes.push(begun);
            continue;
        };
        let m = objective.basis.transpose() * &begun.left * &begun.right;
        let (m, found) = objective.minimised(&inputs, m, settings.iterations, watch)?;
        (0..2).for_each(|i| losses[i] += found[i] / group.layers().len() as f64);
        changes.push(Change { left: objective.basis, right: m });
    }
    Ok(Solution { changes, conditioning: start.conditioning, objective: Some(losses) })
}

/// Inputs of all concepts, held as far as there is room.
struct Inputs<'a> {
    group: &'a dyn Group,
    held: Vec<Option<Moments>>,
}

impl<'a> Inputs<'a> {
    fn of(group: &'a dyn Group) -> Result<Inputs<'a>> {
        let (mut held, mut bytes) = (Vec::new(), 0);
        for index in 0..group.weights().len() {
            if bytes >= MOST_HELD {
                held.push(None);
                continue;
            }
            let moments = group.inputs(index)?.moments();
            bytes += moments.bytes();
            held.push(Some(moments));
        }
        Ok(Inputs { group, held })
    }

    fn get(&self, index: usize) -> Result<Cow<'_, Moments>> {
        match self.held.get(index) {
            Some(Some(moments)) => Ok(Cow::Borrowed(moments)),
            _ => Ok(Cow::Owned(self.group.inputs(index)?.moments())),
        }
    }
}

/// A concept that changes the layer.
struct Concept {
    index: usize,
    /// In parts of all.
    weight: f64,
    /// Its change in the basis `[r, in]`.
    change: Mat<f64>,
    /// || X T^T ||^2 on its own inputs.
    wanted: f64,
    /// || X T_j^T ||^2 on its inputs, for all that change the layer.
    seen: Vec<f64>,
}

/// The loss of one layer. All changes are in the span of the concepts' `up`, whose basis makes them
/// narrow: the gradient never leaves it.
struct Objective {
    layer: String,
    width: usize,
    /// `[out, r]`, orthonormal.
    basis: Mat<f64>,
    concepts: Vec<Concept>,
    margin: f64,
    decay: f64,
}

impl Objective {
    /// None where no concept changes the layer.
    fn of(
        group: &dyn Group,
        layer: usize,
        settings: Loraclr,
        inputs: &Inputs,
    ) -> Result<Option<Objective>> {
        let name = group.layers().get(layer).map_or("", |layer| layer.name.as_str());
        let weights = group.weights().iter().enumerate();
        let own: Vec<_> =
            weights.filter_map(|(i, weight)| Some((i, *weight, group.change(i, layer)?))).collect();
        let ups: Vec<&Mat<f64>> = own.iter().map(|(_, _, change)| &change.up).collect();
        let Some(out) = ups.first().map(|up| up.nrows()) else { return Ok(None) };
        let svd = beside(&ups, out).thin_svd().map_err(|_| singular(name, out, 0.0))?;
        let sizes: Vec<f64> = svd.S().column_vector().iter().copied().collect();
        let largest = sizes.iter().fold(0.0f64, |a, &b| a.max(b));
        let rank = sizes.iter().filter(|size| **size > largest * 1e-12).count();
        let basis = svd.U().subcols(0, rank).to_owned();
        let mut concepts: Vec<Concept> = own
            .into_iter()
            .map(|(index, weight, change)| Concept {
                index,
                weight,
                change: basis.transpose() * change.up * change.down,
                wanted: 0.0,
                seen: Vec::new(),
            })
            .collect();
        for i in 0..concepts.len() {
            let moments = inputs.get(concepts[i].index)?;
            let seen = |other: &Concept| inner(&moments.times(&other.change), &other.change);
            let seen: Vec<f64> = concepts.iter().map(seen).collect();
            concepts[i].wanted = seen[i];
            concepts[i].seen = seen;
        }
        // One that changes nothing on its own inputs is no measure.
        if concepts.iter().all(|concept| concept.wanted <= 0.0) {
            return Ok(None);
        }
        let total: f64 = concepts.iter().filter(|c| c.wanted > 0.0).map(|c| c.weight).sum();
        concepts.iter_mut().for_each(|concept| concept.weight /= total.max(f64::MIN_POSITIVE));
        let (margin, decay, width) = (settings.margin, settings.decay, group.width());
        Ok(Some(Objective { layer: name.into(), width, basis, concepts, margin, decay }))
    }

    fn anchors(&self) -> impl Iterator<Item = (usize, &Concept)> {
        self.concepts.iter().enumerate().filter(|(_, concept)| concept.wanted > 0.0)
    }

    /// The loss and its gradient at `m` in the basis.
    fn at(&self, inputs: &Inputs, m: &Mat<f64>) -> Result<(f64, Mat<f64>)> {
        let mut loss = self.decay * inner(m, m);
        let mut gradient = m * faer::Scale(2.0 * self.decay);
        for (i, concept) in self.anchors() {
            let moments = inputs.get(concept.index)?;
            let seen = moments.times(m);
            let size = inner(&seen, m);
            let square = |j: usize, other: &Concept| {
                let square = size - 2.0 * inner(&seen, &other.change) + concept.seen[j];
                (square / concept.wanted).max(0.0)
            };
            // The gradient of the square of the distance to a concept's answers.
            let slope = |other: &Concept, factor: f64| {
                (&seen - moments.times(&other.change)) * faer::Scale(2.0 * factor / concept.wanted)
            };
            loss += concept.weight * square(i, concept);
            gradient += slope(concept, concept.weight);
            let others = self.concepts.iter().enumerate().filter(|(j, _)| *j != i);
            let nearest = others
                .map(|(j, other)| (square(j, other), other))
                .min_by(|a, b| a.0.total_cmp(&b.0));
            let Some((square, other)) = nearest else { continue };
            let distance = square.max(LEAST_SQUARE).sqrt();
            let short = self.margin - distance;
            if short > 0.0 {
                loss += concept.weight * short * short;
                if square > LEAST_SQUARE {
                    gradient += slope(other, -concept.weight * short / distance);
                }
            }
        }
        Ok((loss, gradient))
    }

    /// The Hessian of all but the margin's part.
    fn curvature(&self, inputs: &Inputs) -> Result<Llt<f64>> {
        let mut sums = Mat::<f64>::zeros(self.width, self.width);
        for (_, concept) in self.anchors() {
            let gram = inputs.get(concept.index)?.into_owned().into_gram();
            sums += gram * faer::Scale(2.0 * concept.weight / concept.wanted);
        }
        let mean = (0..self.width).map(|i| sums[(i, i)]).sum::<f64>() / self.width.max(1) as f64;
        let lift = 2.0 * self.decay + 1e-10 * mean;
        (0..self.width).for_each(|i| sums[(i, i)] += lift);
        sums.llt(Side::Lower).map_err(|_| singular(&self.layer, self.width, 1e-10))
    }

    /// Downhill from `m`, by steps that would be Newton's if no margin acted; the losses before and
    /// after.
    fn minimised(
        &self,
        inputs: &Inputs,
        mut m: Mat<f64>,
        iterations: usize,
        watch: &mut Watch,
    ) -> Result<(Mat<f64>, [f64; 2])> {
        let curvature = self.curvature(inputs)?;
        let (mut loss, mut gradient) = self.at(inputs, &m)?;
        let first = loss;
        for iteration in 0..iterations {
            heed(watch(Progress::new("solve", iteration, iterations)))?;
            let step = curvature.solve(gradient.transpose()).transpose() * faer::Scale(-1.0);
            let slope = inner(&gradient, &step);
            let mut length = 1.0;
            let mut taken = None;
            for _ in 0..HALVINGS {
                let next = &m + &step * faer::Scale(length);
                let (there, slope_there) = self.at(inputs, &next)?;
                if there <= loss + DECREASE * length * slope {
                    taken = Some((next, there, slope_there));
                    break;
                }
                length *= 0.5;
            }
            let Some((next, there, slope_there)) = taken else { break };
            let gained = loss - there;
            (m, loss, gradient) = (next, there, slope_there);
            if gained <= TOLERANCE * first {
                break;
            }
        }
        Ok((m, [first, loss]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Factors, Layer};
    use super::*;
    use crate::fusion::statistics::Statistics;
    use crate::unwatched;

    #[derive(Deserialize)]
    struct Case {
        margin: f64,
        decay: f64,
        weights: Vec<f64>,
        inputs: Vec<Vec<Vec<f32>>>,
        up: Vec<Vec<Vec<f64>>>,
        down: Vec<Vec<Vec<f64>>>,
        change: Vec<Vec<f64>>,
        loss: f64,
        gradient: Vec<Vec<f64>>,
        least: f64,
    }

    fn matrix(rows: &[Vec<f64>]) -> Mat<f64> {
        Mat::from_fn(rows.len(), rows[0].len(), |i, j| rows[i][j])
    }

    struct Fixture {
        case: Case,
        layers: [Layer; 1],
    }

    impl Fixture {
        fn read() -> Fixture {
            let text = include_str!("../../../tests/fixtures/loraclr.json");
            let case: Case = serde_json::from_str(text).unwrap();
            let layers = [Layer { name: "fixture".into(), out: case.change.len() }];
            Fixture { case, layers }
        }

        fn settings(&self) -> Loraclr {
            let start = Exact { keep_weight: 0.0, ..Exact::default() };
            let Case { margin, decay, .. } = self.case;
            Loraclr { start, margin, decay, iterations: 400 }
        }
    }

    impl Group for Fixture {
        fn name(&self) -> &str {
            "fixture"
        }

        fn width(&self) -> usize {
            self.case.change[0].len()
        }

        fn layers(&self) -> &[Layer] {
            &self.layers
        }

        fn weights(&self) -> &[f64] {
            &self.case.weights
        }

        fn inputs(&self, index: usize) -> Result<Cow<'_, Statistics>> {
            let rows = self.case.inputs[index].concat();
            Ok(Cow::Owned(Statistics::from_samples(self.width(), rows)))
        }

        fn change(&self, index: usize, _: usize) -> Option<Factors> {
            let (up, down) = (matrix(&self.case.up[index]), matrix(&self.case.down[index]));
            Some(Factors { up, down })
        }

        fn keep(&self) -> Result<[Option<Cow<'_, Statistics>>; 2]> {
            Ok([None, None])
        }
    }

    fn objective(fixture: &Fixture, inputs: &Inputs) -> Objective {
        Objective::of(fixture, 0, fixture.settings(), inputs).unwrap().unwrap()
    }

    #[test]
    fn loss_and_gradient_are_pytorchs() {
        let fixture = Fixture::read();
        let inputs = Inputs::of(&fixture).unwrap();
        let objective = objective(&fixture, &inputs);
        let m = objective.basis.transpose() * matrix(&fixture.case.change);
        let (loss, gradient) = objective.at(&inputs, &m).unwrap();
        assert!((loss - fixture.case.loss).abs() < 1e-9 * fixture.case.loss, "{loss}");
        let expected = matrix(&fixture.case.gradient);
        let error = (&objective.basis * gradient - &expected).norm_max();
        assert!(error < 1e-9 * expected.norm_max(), "{error}");
    }

    #[test]
    fn sums_give_the_loss_of_the_inputs_themselves() {
        let fixture = Fixture::read();
        let mut inputs = Inputs::of(&fixture).unwrap();
        let objective = objective(&fixture, &inputs);
        let m = objective.basis.transpose() * matrix(&fixture.case.change);
        for moments in inputs.held.iter_mut().flatten() {
            *moments = Moments::Gram(moments.clone().into_gram());
        }
        let of_sums = objective.at(&inputs, &m).unwrap().0;
        // What is not held is read again.
        inputs.held.iter_mut().for_each(|held| *held = None);
        let of_inputs = objective.at(&inputs, &m).unwrap().0;
        assert!((of_sums - of_inputs).abs() < 1e-12 && (of_sums - fixture.case.loss).abs() < 1e-9);
    }

    #[test]
    fn the_search_ends_where_pytorchs_does() {
        let fixture = Fixture::read();
        let inputs = Inputs::of(&fixture).unwrap();
        let objective = objective(&fixture, &inputs);
        let m = objective.basis.transpose() * matrix(&fixture.case.change);
        let (_, [first, last]) = objective.minimised(&inputs, m, 400, &mut unwatched).unwrap();
        let least = fixture.case.least;
        assert!((first - fixture.case.loss).abs() < 1e-9);
        assert!(last < least * 1.001, "{last} {least}");
    }

    #[test]
    fn it_starts_from_the_exact_solution_and_is_never_worse() {
        let fixture = Fixture::read();
        let settings = fixture.settings();
        let solution = solve(&fixture, settings, (1e-3, Towards::Base), &mut unwatched).unwrap();
        let [before, after] = solution.objective.unwrap();
        assert!(after < before, "{before} {after}");
        let none = Loraclr { iterations: 0, ..settings };
        let start = solve(&fixture, none, (1e-3, Towards::Base), &mut unwatched).unwrap();
        let gathered = Gathered::of(&fixture, 0.0).unwrap();
        let exact = exact::solve(&gathered, 1e-3, Towards::Base).unwrap();
        let difference = start.changes[0].whole() - exact.changes[0].whole();
        assert!(difference.norm_max() < 1e-9 * exact.changes[0].whole().norm_max());
        // Without a margin and a decay, the exact solution of weights by energy is the answer: what
        // pushes apart costs the concepts' own answers something.
        let free = Loraclr { margin: 0.0, ..settings };
        let pulled = solve(&fixture, free, (1e-3, Towards::Base), &mut unwatched).unwrap();
        assert!(pulled.objective.unwrap()[1] < after);
    }
}
