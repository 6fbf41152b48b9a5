//! Regularised least squares, solved directly.

use super::gathered::Target;
use super::inverse::{Inverse, Sums};
use super::{Change, Gathered, Solution, singular};
use crate::fusion::Result;

/// Settings of the direct solver.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Exact {
    /// A part of the mean diagonal of the inputs' sums; none: chosen by measurement
    /// ([`super::choose`]).
    pub ridge: Option<f64>,
    /// What the ridge pulls to; none: what a ridge that is given always did, the base weights; one
    /// that is chosen, whichever measures better.
    #[serde(default)]
    pub towards: Option<Towards>,
    /// How much the inputs on which nothing should change weigh, all together: as this many
    /// concepts.
    pub keep_weight: f64,
}

impl Default for Exact {
    fn default() -> Exact {
        Exact { ridge: None, towards: None, keep_weight: KEEP_WEIGHT }
    }
}

/// What a ridge pulls to, where inputs tell little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Towards {
    /// The base model's weights: no change.
    #[default]
    Base,
    /// The mean of the concepts' changes.
    Average,
}

impl std::fmt::Display for Towards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Towards::Base => "the base weights",
            Towards::Average => "the mean of all changes",
        })
    }
}

/// Little: concepts are what a user fuses for.
const KEEP_WEIGHT: f64 = 0.1;

/// Below this ridge the rounding of sums (a few 1e-8 of their mean diagonal) may outweigh it, and a
/// Cholesky decomposition of what is hardly positive would blow that up.
const LEAST_FOR_CHOLESKY: f64 = 1e-7;

/// Solves at `ridge`, a part of the mean diagonal; 0 gives the answer of least norm. Where rounding
/// has left sums that a Cholesky decomposition refuses, directions whose eigenvalues are not
/// positive are left out.
pub(super) fn solve(gathered: &Gathered, ridge: f64, towards: Towards) -> Result<Solution> {
    let absolute = ridge * gathered.mean_diagonal;
    let sums = Sums::of(gathered, ridge < LEAST_FOR_CHOLESKY)?;
    if let Some(inverse) = sums.inverse(absolute) {
        return Ok(solution(gathered, &inverse, towards));
    }
    let sums = Sums::of(gathered, true)?;
    let inverse =
        sums.inverse(absolute).ok_or_else(|| singular(&gathered.name, gathered.width, ridge))?;
    Ok(solution(gathered, &inverse, towards))
}

fn solution(gathered: &Gathered, inverse: &Inverse, towards: Towards) -> Solution {
    let change = |target| change(gathered, target, inverse, towards);
    let changes = gathered.targets.iter().map(change).collect();
    let conditioning = Some(inverse.conditioning(gathered.width));
    Solution { conditioning, ..Solution::of(changes) }
}

/// B (G + ridge)^-1, as narrow as B is; towards the mean A of the changes A + (B - A G)
/// (G + ridge)^-1.
pub(super) fn change(
    gathered: &Gathered,
    target: &Target,
    inverse: &Inverse,
    towards: Towards,
) -> Change {
    let right = match towards {
        Towards::Base => target.down_gram.clone(),
        Towards::Average => &target.down_gram - gathered.inputs.times(&target.down_mean),
    };
    let is_narrow = target.up.ncols() <= target.layer.out;
    let (left, right) = match is_narrow {
        true => (target.up.clone(), right),
        false => {
            let out = target.layer.out;
            (faer::Mat::identity(out, out), &target.up * right)
        }
    };
    let mut right = inverse.applied_to(&right);
    if towards == Towards::Average {
        match is_narrow {
            true => right += &target.down_mean,
            false => right += &target.up * &target.down_mean,
        }
    }
    Change { left, right }
}
