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
    /// How much the inputs on which nothing should change weigh, all together: as this many
    /// concepts.
    pub keep_weight: f64,
}

impl Default for Exact {
    fn default() -> Exact {
        Exact { ridge: None, keep_weight: KEEP_WEIGHT }
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
pub(super) fn solve(gathered: &Gathered, ridge: f64) -> Result<Solution> {
    let absolute = ridge * gathered.mean_diagonal;
    let sums = Sums::of(gathered, ridge < LEAST_FOR_CHOLESKY)?;
    if let Some(inverse) = sums.inverse(absolute) {
        return Ok(solution(gathered, &inverse));
    }
    let sums = Sums::of(gathered, true)?;
    let inverse =
        sums.inverse(absolute).ok_or_else(|| singular(&gathered.name, gathered.width, ridge))?;
    Ok(solution(gathered, &inverse))
}

fn solution(gathered: &Gathered, inverse: &Inverse) -> Solution {
    let changes = gathered.targets.iter().map(|target| change(target, inverse)).collect();
    Solution { changes, conditioning: Some(inverse.conditioning(gathered.width)) }
}

/// B (G + ridge)^-1, as narrow as B is.
pub(super) fn change(target: &Target, inverse: &Inverse) -> Change {
    if target.up.ncols() <= target.layer.out {
        return Change { left: target.up.clone(), right: inverse.applied_to(&target.down_gram) };
    }
    let whole = &target.up * &target.down_gram;
    Change {
        left: faer::Mat::identity(target.layer.out, target.layer.out),
        right: inverse.applied_to(&whole),
    }
}
