//! From what the model predicts to the original sample x0 and the noise eps, where x = signal * x0
//! + noise * eps.
use super::linear::{Combination, OUT, X};
use crate::scheduler::config::PredictionType;
use crate::scheduler::schedule::NoiseLevel;

impl PredictionType {
    /// x0 at a level of the variance-preserving kind (signal^2 + noise^2 = 1).
    pub(super) fn original(self, level: NoiseLevel) -> Combination {
        match self {
            Self::Epsilon => (X - OUT * level.noise) * (1.0 / f64::from(level.signal)),
            Self::VPrediction => X * level.signal - OUT * level.noise,
            Self::Sample => OUT,
        }
    }

    /// eps at such a level.
    pub(super) fn noise(self, level: NoiseLevel) -> Combination {
        match self {
            Self::Epsilon => OUT,
            Self::VPrediction => OUT * level.signal + X * level.noise,
            Self::Sample => (X - OUT * level.signal) * (1.0 / f64::from(level.noise)),
        }
    }

    /// x0 where x = x0 + sigma * eps and the model was given x / sqrt(sigma^2 + 1).
    pub(super) fn denoised(self, sigma: f32) -> Combination {
        let variance = f64::from(sigma * sigma + 1.0);
        match self {
            Self::Epsilon => X - OUT * sigma,
            Self::VPrediction => X * (1.0 / variance) - OUT * (f64::from(sigma) / variance.sqrt()),
            Self::Sample => OUT,
        }
    }

    /// dx/dsigma = (x - x0) / sigma, where x = x0 + sigma * eps (Karras et al. 2022, algorithm 1).
    pub(super) fn derivative(self, sigma: f32) -> Combination {
        match self {
            // (x - (x - sigma * eps)) / sigma
            Self::Epsilon => OUT,
            _ => (X - self.denoised(sigma)) * (1.0 / f64::from(sigma)),
        }
    }
}
