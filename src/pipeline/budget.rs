//! What a run takes of the device's memory at most, and what is given up to stay within a budget.

use super::MemoryPlan;
use super::error::{Result, option};

/// What a run needs, part by part, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    /// Of weights.
    pub text: u64,
    pub unet: u64,
    pub decoder: u64,
    pub encoder: u64,
    /// Of activations and inputs.
    pub sampling: u64,
    /// While what is read of the prompts is made, beside those of sampling.
    pub preparing: u64,
    pub decoding: u64,
    pub encoding: u64,
}

/// What is given up on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Savings {
    /// The text encoder's weights, once the prompts are encoded.
    pub text: bool,
    /// The UNet's and the autoencoder's weights, while the other one is at work.
    pub turns: bool,
}

/// Devices round what they are asked for, here and there.
const ROUNDING: u64 = 64 << 10;

/// In the order in which they are tried.
const LEVELS: [Savings; 3] = [
    Savings { text: false, turns: false },
    Savings { text: true, turns: false },
    Savings { text: true, turns: true },
];

impl Needs {
    /// The most at once.
    fn peak(&self, savings: Savings) -> u64 {
        let text = if savings.text { 0 } else { self.text };
        let beside = |bytes: u64| if savings.turns { 0 } else { bytes };
        let vae = self.encoder + self.decoder;
        let encoding = text + self.encoder + self.encoding;
        let sampling = text + self.unet + self.sampling + self.preparing + beside(vae);
        let decoding = text + self.decoder + self.decoding + beside(self.unet + self.encoder);
        self.text.max(encoding).max(sampling).max(decoding) + ROUNDING
    }

    /// The least that is given up to fit into `budget`.
    ///
    /// # Errors
    /// A budget that is too small whatever is given up, with what would do.
    pub fn within(&self, budget: Option<u64>) -> Result<Savings> {
        let Some(budget) = budget else { return Ok(Savings::default()) };
        let fits = LEVELS.into_iter().find(|savings| self.peak(*savings) <= budget);
        fits.ok_or_else(|| {
            let least = self.peak(LEVELS[2]);
            option(
                "memory",
                format!("{} MiB", budget >> 20),
                format!(
                    "{} MiB at least for this picture by this model; a smaller picture, or weights \
                        of fewer bits, take less",
                    least.div_ceil(1 << 20)
                ),
            )
        })
    }

    /// The plan that people see.
    pub fn plan(&self, savings: Savings) -> MemoryPlan {
        MemoryPlan {
            weights: self.text + self.unet + self.decoder + self.encoder,
            text: self.text,
            unet: self.unet,
            vae: self.decoder + self.encoder,
            sampling: self.sampling,
            decoding: self.decoding,
            encoding: self.encoding,
            peak: self.peak(savings),
        }
    }
}

impl Savings {
    /// What it costs, in sentences; `parts` of a batch are sampled one after another.
    pub fn costs(&self, parts: usize) -> Vec<String> {
        let mut costs = Vec::new();
        if self.text {
            costs.push(
                "the text encoder's weights are given up once the prompts are encoded, and read \
                    again for the next ones"
                    .to_string(),
            );
        }
        if self.turns {
            costs.push(format!(
                "the UNet and the autoencoder take turns: {}",
                match parts {
                    0 | 1 => "each is read once".to_string(),
                    _ => format!("each is read {parts} times"),
                }
            ));
        }
        costs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_given_up_than_is_needed() {
        let needs = Needs {
            text: 100,
            unet: 1000,
            decoder: 50,
            sampling: 300,
            decoding: 400,
            ..Needs::default()
        };
        assert_eq!(needs.peak(LEVELS[0]), 100 + 1000 + 50 + 400 + ROUNDING);
        let level = |budget: u64| needs.within(Some(budget + ROUNDING)).unwrap();
        assert_eq!(needs.within(None).unwrap(), LEVELS[0]);
        assert_eq!(level(1550), LEVELS[0]);
        assert_eq!(level(1549), LEVELS[1]);
        assert_eq!(level(1450), LEVELS[1]);
        assert_eq!(level(1449), LEVELS[2]);
        assert_eq!(level(1300), LEVELS[2]);
        let error = needs.within(Some(1299 + ROUNDING)).unwrap_err().to_string();
        assert!(error.starts_with("memory is 0 MiB: expected 1 MiB at least"), "{error}");
        assert_eq!(needs.plan(LEVELS[2]).peak, 1300 + ROUNDING);
        assert_eq!((LEVELS[0].costs(3).len(), LEVELS[2].costs(3).len()), (0, 2));
    }
}
