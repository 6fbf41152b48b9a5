//! What changes from step to step without chance: learning rates, and what a loss counts at each
//! noise level.

use super::config::Settings;
use super::step::Rates;
use crate::scheduler::config::PredictionType;

impl Settings {
    /// Learning rates of update `step`, counted from 0.
    pub fn rates(&self, step: u64) -> Rates {
        let factor = self.decay.factor(usize::try_from(step).unwrap_or(usize::MAX), self.steps);
        let [rows, text, unet] =
            [self.words_lr, self.text_lr, self.unet_lr].map(|rate| (rate * factor) as f32);
        Rates { rows, text, unet }
    }
}

/// Min-SNR weighting (Hang et al. 2023, "Efficient diffusion training via min-SNR weighting
/// strategy", eq. 4 to 6): the factor of the loss at a signal-to-noise ratio `snr`.
pub fn min_snr(snr: f32, gamma: f32, prediction: PredictionType) -> f32 {
    let most = snr.min(gamma);
    match prediction {
        PredictionType::Epsilon => (gamma / snr).min(1.0),
        PredictionType::VPrediction => most / (snr + 1.0),
        PredictionType::Sample => most,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_noise_levels() {
        use PredictionType::{Epsilon, Sample, VPrediction};
        assert_eq!([0.5, 5.0, 20.0].map(|snr| min_snr(snr, 5.0, Epsilon)), [1.0, 1.0, 0.25]);
        assert_eq!([0.5, 19.0].map(|snr| min_snr(snr, 5.0, VPrediction)), [0.5 / 1.5, 0.25]);
        assert_eq!([0.5, 19.0].map(|snr| min_snr(snr, 5.0, Sample)), [0.5, 5.0]);
        assert_eq!(min_snr(0.0, 5.0, Epsilon), 1.0);
    }
}
