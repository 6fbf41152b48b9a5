//! Weights that answer every concept's inputs as that concept's tuned layer does.
//!
//! For one layer with base weight W0 and changes T_i (a_i up_i down_i) of concepts whose inputs are
//! the rows of X_i, the wanted change is D = argmin sum_i || X_i (T_i - D)^T ||^2 + k || X_keep D^T
//! ||^2 + ridge || D ||^2 (Mix-of-Show, arXiv 2305.18292, section 3.3, with what must not change
//! added). It is linear least squares: D = B (G + ridge)^-1, with G = sum_i G_i + k G_keep, G_i =
//! X_i^T X_i and B = sum_i T_i G_i. T_i are of low rank, so B = U M with few columns and rows, and
//! so is D.

mod average;
mod conflict;
mod exact;
mod gathered;
mod grow;
mod inverse;
mod lbfgs;
mod loraclr;
mod measure;
mod merge;
mod ridge;

use std::borrow::Cow;

use faer::Mat;

use super::statistics::Statistics;
use super::{Error, Result};
use crate::watch::Watch;

pub use exact::{Exact, Towards};
pub use grow::{Before, Grown, grow};
pub use lbfgs::Lbfgs;
pub use loraclr::Loraclr;
pub use measure::{LayerMeasures, Measures};
pub use merge::{Merge, Way};
pub use ridge::{RidgeChoice, RidgePoint, choose};

pub(super) use conflict::{Pair, pairs};
pub(super) use gathered::Gathered;
pub(super) use measure::norm;

/// How one concept changes one layer: `up` times `down`, scales applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// `[out, rank]`
    pub up: Mat<f64>,
    /// `[rank, in]`
    pub down: Mat<f64>,
}

/// A layer of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its full name.
    pub name: String,
    /// Outputs.
    pub out: usize,
}

/// Layers that read the same inputs, and what the concepts have for them. Statistics are loaded one
/// after another, so that memory does not grow with the number of concepts.
pub trait Group {
    /// Of the first layer: what errors say.
    fn name(&self) -> &str;

    /// Channels of the inputs.
    fn width(&self) -> usize;

    /// Those that read the inputs, in a fixed order.
    fn layers(&self) -> &[Layer];

    /// Concepts, each with its weight in the sum (a concept that is listed twice weighs 2).
    fn weights(&self) -> &[f64];

    /// Inputs that concept `index` has.
    fn inputs(&self, index: usize) -> Result<Cow<'_, Statistics>>;

    /// What concept `index` does to layer `layer`; none: nothing.
    fn change(&self, index: usize, layer: usize) -> Option<Factors>;

    /// Inputs that concept `index` has from other seeds and prompts, to measure with; none where
    /// nothing was kept aside.
    fn held_out(&self, index: usize) -> Result<Option<Cow<'_, Statistics>>> {
        let _ = index;
        Ok(None)
    }

    /// Inputs on which nothing should change, and others of that kind to measure with.
    fn keep(&self) -> Result<[Option<Cow<'_, Statistics>>; 2]>;
}

/// The change of one layer: `left` times `right`, which are narrow where the concepts' ranks allow.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `[out, k]`
    pub left: Mat<f64>,
    /// `[k, in]`
    pub right: Mat<f64>,
}

impl Change {
    /// `[out, in]`
    pub fn whole(&self) -> Mat<f64> {
        &self.left * &self.right
    }
}

/// Which way the changes are found.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// Regularised least squares, solved directly in f64.
    Exact(Exact),
    /// The published way, for comparison.
    Lbfgs(Lbfgs),
    /// LoRACLR's contrastive objective, from the exact solution.
    Loraclr(Loraclr),
    /// The mean of the concepts' changes (FedAvg), whatever their inputs are.
    Average,
    /// Other methods' mergers, whatever their inputs are.
    Merge(Merge),
}

impl Solver {
    /// It asks what layers read.
    pub fn reads_inputs(&self) -> bool {
        matches!(self, Solver::Exact(_) | Solver::Lbfgs(_) | Solver::Loraclr(_))
    }

    /// The regularised least squares that it is, or starts from.
    pub fn exact(&self) -> Option<&Exact> {
        match self {
            Solver::Exact(exact) | Solver::Loraclr(Loraclr { start: exact, .. }) => Some(exact),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn exact_mut(&mut self) -> Option<&mut Exact> {
        match self {
            Solver::Exact(exact) | Solver::Loraclr(Loraclr { start: exact, .. }) => Some(exact),
            _ => None,
        }
    }
}

impl Default for Solver {
    fn default() -> Self {
        Solver::Exact(Exact::default())
    }
}

/// What a solver found for a group.
#[derive(Clone, Debug)]
pub struct Solution {
    /// For each layer.
    pub changes: Vec<Change>,
    /// None of solvers that don't tell.
    pub conditioning: Option<Conditioning>,
    /// What LoRACLR's solver makes small, as a mean over the layers: at the exact solution, and in
    /// the end.
    pub objective: Option<[f64; 2]>,
}

impl Solution {
    fn of(changes: Vec<Change>) -> Solution {
        Solution { changes, conditioning: None, objective: None }
    }
}

/// How well the inputs determine the answer.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Conditioning {
    /// Directions that count against the ridge: sum of s / (s + ridge) over the eigenvalues s of
    /// the sums.
    pub effective_rank: f64,
    /// Largest to least eigenvalue, ridge included.
    pub condition: f64,
}

/// Solves one group. `ridge` is a part of the mean diagonal of the sums, and pulls `towards`. `watch` is told of
/// iterations of L-BFGS and LoRACLR; the other ways take one step.
///
/// # Errors
/// Statistics that cannot be read or solved for; [`Error::Cancelled`].
pub fn solve(
    group: &dyn Group,
    solver: Solver,
    (ridge, towards): (f64, Towards),
    watch: &mut Watch,
) -> Result<Solution> {
    match solver {
        Solver::Exact(settings) => {
            exact::solve(&Gathered::of(group, settings.keep_weight)?, ridge, towards)
        }
        Solver::Lbfgs(settings) => {
            let gathered = Gathered::of(group, 0.0)?;
            Ok(Solution::of(lbfgs::solve(&gathered, settings, watch)?))
        }
        Solver::Loraclr(settings) => loraclr::solve(group, settings, (ridge, towards), watch),
        Solver::Average => Ok(Solution::of(average::solve(group))),
        Solver::Merge(merge) => Ok(Solution::of(merge::solve(group, merge))),
    }
}

/// Sum of the products of their elements.
pub(super) fn inner(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    let columns =
        (0..a.ncols()).map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>());
    columns.sum()
}

/// || left right X^T ||^2, given right X^T X right^T.
pub(super) fn energy(left: &Mat<f64>, seen: &Mat<f64>) -> f64 {
    inner(&(left.transpose() * left), seen)
}

/// One above another.
pub(super) fn stack(parts: &[&Mat<f64>], columns: usize) -> Mat<f64> {
    let rows = parts.iter().map(|part| part.nrows()).sum();
    let mut all = Mat::zeros(rows, columns);
    let mut first = 0;
    for part in parts {
        all.as_mut().subrows_mut(first, part.nrows()).copy_from(part);
        first += part.nrows();
    }
    all
}

/// One beside another.
pub(super) fn beside(parts: &[&Mat<f64>], rows: usize) -> Mat<f64> {
    let columns = parts.iter().map(|part| part.ncols()).sum();
    let mut all = Mat::zeros(rows, columns);
    let mut first = 0;
    for part in parts {
        all.as_mut().subcols_mut(first, part.ncols()).copy_from(part);
        first += part.ncols();
    }
    all
}

fn singular(group: &str, width: usize, ridge: f64) -> Error {
    Error::Singular { layer: group.into(), width, ridge }
}
