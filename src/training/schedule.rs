//! What changes from step to step without chance: learning rates, and what a loss counts at each
//! noise level.

use super::config::Settings;
use super::step::Rates;
use crate::scheduler::config::PredictionType;

impl Settings {
    /// Learning rates of update `step`, counted from 0.
    pub fn rates(&self, step: u64) -> Rates {
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        let of_words = self.decay.factor(step, self.steps);
        // The LoRAs' rates go down over the updates that they take part in.
        let of_lora = match step.checked_sub(self.words_first) {
            Some(step) => self.decay.factor(step, self.steps.saturating_sub(self.words_first)),
            None => 0.0,
        };
        Rates {
            rows: (self.words_lr * of_words) as f32,
            text: (self.text_lr * of_lora) as f32,
            unet: (self.unet_lr * of_lora) as f32,
        }
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
    use crate::training::config::Options;

    #[test]
    fn loras_that_join_later_begin_at_their_full_rate() {
        let settings = |words_first| {
            let given = Options {
                words: Some("<a1> <a2>".into()),
                class_word: Some("man".into()),
                pictures: Some("x".into()),
                steps: Some(100),
                words_first,
                ..Options::default()
            };
            Settings::new(given).unwrap()
        };
        let all = |words_first, step| {
            let Rates { rows, text, unet } = settings(words_first).rates(step);
            [rows, text, unet]
        };
        assert_eq!(all(None, 50), [5e-4, 5e-6, 5e-5]);
        assert_eq!(all(Some(20), 0), [1e-3, 0.0, 0.0]);
        assert_eq!(all(Some(20), 19)[1..], [0.0, 0.0]);
        assert_eq!(all(Some(20), 20), [8e-4, 1e-5, 1e-4]);
        assert_eq!(all(Some(20), 60), [4e-4, 5e-6, 5e-5]);
        assert_eq!(all(Some(20), 100), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn weights_of_noise_levels() {
        use PredictionType::{Epsilon, Sample, VPrediction};
        assert_eq!([0.5, 5.0, 20.0].map(|snr| min_snr(snr, 5.0, Epsilon)), [1.0, 1.0, 0.25]);
        assert_eq!([0.5, 19.0].map(|snr| min_snr(snr, 5.0, VPrediction)), [0.5 / 1.5, 0.25]);
        assert_eq!([0.5, 19.0].map(|snr| min_snr(snr, 5.0, Sample)), [0.5, 5.0]);
        assert_eq!(min_snr(0.0, 5.0, Epsilon), 1.0);
    }
}
