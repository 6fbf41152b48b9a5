//! How a run's steps are spread over the noise: the schedules that people ask for by name, and the
//! noise levels of those that do not go by timesteps.

use std::fmt;
use std::str::FromStr;

use super::config::{Settings, SigmaSpacing, TimestepSpacing};
use super::schedule::linspace;

/// A schedule, in place of what the model's files say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Karras's noise levels (Karras et al. 2022, eq. 5).
    Karras,
    /// Noise levels evenly in their logarithm.
    Exponential,
    /// Noise levels by the quantiles of a beta distribution (Lee et al. 2024).
    Beta,
    /// Every n-th timestep from 0 on.
    Leading,
    /// Timesteps evenly from the first to the last.
    Linspace,
    /// Every n-th timestep back from the last one (Lin et al. 2024).
    Trailing,
    /// Timesteps evenly from the last one, the end left out.
    SgmUniform,
    /// Every n-th timestep back from the last one, each rounded up.
    Simple,
}

impl Schedule {
    /// All, in the order in which they are listed for people.
    pub const ALL: [Self; 8] = [
        Self::Karras,
        Self::Exponential,
        Self::Beta,
        Self::SgmUniform,
        Self::Simple,
        Self::Trailing,
        Self::Linspace,
        Self::Leading,
    ];

    /// On the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Karras => "karras",
            Self::Exponential => "exponential",
            Self::Beta => "beta",
            Self::Leading => "leading",
            Self::Linspace => "linspace",
            Self::Trailing => "trailing",
            Self::SgmUniform => "sgm-uniform",
            Self::Simple => "simple",
        }
    }

    /// As web UIs call it; they have no names for some, and get ours.
    pub fn web_name(self) -> &'static str {
        match self {
            Self::Karras => "Karras",
            Self::Exponential => "Exponential",
            Self::Beta => "Beta",
            Self::Leading => "Leading",
            Self::Linspace => "Linspace",
            Self::Trailing => "Trailing",
            Self::SgmUniform => "SGM Uniform",
            Self::Simple => "Simple",
        }
    }

    /// How it finds noise levels.
    pub(super) fn sigmas(self) -> SigmaSpacing {
        match self {
            Self::Karras => SigmaSpacing::Karras,
            Self::Exponential => SigmaSpacing::Exponential,
            Self::Beta => SigmaSpacing::Beta,
            _ => SigmaSpacing::Timesteps,
        }
    }

    /// How it spreads timesteps; none: as the model says.
    fn timesteps(self) -> Option<TimestepSpacing> {
        match self {
            Self::Karras | Self::Exponential | Self::Beta => None,
            Self::Leading => Some(TimestepSpacing::Leading),
            Self::Linspace => Some(TimestepSpacing::Linspace),
            Self::Trailing => Some(TimestepSpacing::Trailing),
            Self::SgmUniform => Some(TimestepSpacing::SgmUniform),
            Self::Simple => Some(TimestepSpacing::Simple),
        }
    }

    /// Puts it in force.
    pub(super) fn apply(self, settings: &mut Settings) {
        settings.sigmas = self.sigmas();
        settings.spacing = self.timesteps().unwrap_or(settings.spacing);
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no schedule's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "unknown schedule `{0}`: expected one of {list}",
    list = Schedule::ALL.map(Schedule::name).join(", ")
)]
pub struct UnknownSchedule(pub String);

impl FromStr for Schedule {
    type Err = UnknownSchedule;

    fn from_str(name: &str) -> Result<Self, UnknownSchedule> {
        let plain = name.to_ascii_lowercase().replace(['_', ' '], "-");
        let found = Self::ALL.into_iter().find(|schedule| schedule.name() == plain);
        found.ok_or_else(|| UnknownSchedule(name.into()))
    }
}

impl SigmaSpacing {
    /// `n` sigmas from `max` to `min`.
    pub(super) fn sigmas(self, min: f64, max: f64, n: usize) -> Vec<f64> {
        // From 1 down to 0.
        let ramp = linspace(1.0, n).into_iter();
        match self {
            Self::Karras => {
                const RHO: f64 = 7.0;
                let (min, max) = (min.powf(1.0 / RHO), max.powf(1.0 / RHO));
                ramp.rev().map(|r| (max + r * (min - max)).powf(RHO)).collect()
            }
            Self::Exponential => {
                let (min, max) = (min.ln(), max.ln());
                ramp.rev().map(|r| (max + r * (min - max)).exp()).collect()
            }
            Self::Beta => ramp.rev().map(|r| min + beta_quantile(1.0 - r) * (max - min)).collect(),
            Self::Timesteps => Vec::new(),
        }
    }
}

/// Both parameters of the beta distribution.
const ALPHA: f64 = 0.6;

/// The value below which a share `p` of the beta distribution lies.
fn beta_quantile(p: f64) -> f64 {
    if p > 0.5 {
        return 1.0 - beta_quantile(1.0 - p);
    }
    if p <= 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (0.0, 0.5);
    // More halvings than an f64 has digits: small values want them.
    for _ in 0..120 {
        let middle = 0.5 * (low + high);
        if beta_share(middle) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The share of the beta distribution below `x`, up to 0.5: the power series of the incomplete beta
/// function.
fn beta_share(x: f64) -> f64 {
    let whole = libm::tgamma(ALPHA).powi(2) / libm::tgamma(2.0 * ALPHA);
    let (mut term, mut sum) = (1.0, 0.0);
    for n in 0..64 {
        let n = f64::from(n);
        sum += term / (ALPHA + n);
        term *= x * (n + 1.0 - ALPHA) / (n + 1.0);
    }
    x.powf(ALPHA) * sum / whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of `scipy.stats.beta.ppf(p, 0.6, 0.6)`.
    #[test]
    fn quantiles_are_those_of_the_distribution() {
        for (p, value) in [
            (0.0, 0.0),
            (0.001, 1.855873851745199e-5),
            (0.1, 0.03958440558878085),
            (0.5, 0.5),
            (0.75, 0.824319621347305),
            (1.0, 1.0),
        ] {
            assert!((beta_quantile(p) - value).abs() <= 1e-10 * value, "{p}");
        }
    }

    #[test]
    fn schedules_are_read_as_they_are_written() {
        for schedule in Schedule::ALL {
            assert_eq!(schedule.name().parse(), Ok(schedule));
            assert_eq!(schedule.web_name().parse(), Ok(schedule));
        }
        let error = "AYS".parse::<Schedule>().unwrap_err().to_string();
        assert!(error.contains("`AYS`") && error.contains("karras, exponential"), "{error}");
    }
}
