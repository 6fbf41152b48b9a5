//! What a run takes of the device's memory at most, and what is given up to stay within a budget.

use super::MemoryPlan;
use super::error::{Result, option};
use crate::backend::{Held, TooLittle};

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
    /// Weights of the UNet that come anew with each call of it.
    pub streamed: Option<Streamed>,
}

/// How a UNet's weights come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Streamed {
    /// Those of a step.
    pub held: Held,
    /// What the step's weights may have of the device.
    pub within: u64,
    /// What those have that keys and values are made with.
    pub keys_values: u64,
    /// Of all that is at work while sampling.
    pub bytes: u64,
}

/// Devices round what they are asked for, here and there.
const ROUNDING: u64 = 64 << 10;

/// In the order in which they are tried.
const LEVELS: [Savings; 3] = [
    Savings { text: false, turns: false, streamed: None },
    Savings { text: true, turns: false, streamed: None },
    Savings { text: true, turns: true, streamed: None },
];

impl Needs {
    /// The most at once.
    fn peak(&self, savings: Savings) -> u64 {
        let text = if savings.text { 0 } else { self.text };
        let beside = |bytes: u64| if savings.turns { 0 } else { bytes };
        let vae = self.encoder + self.decoder;
        let encoding = text + self.encoder + self.encoding;
        let unet = savings.streamed.map_or(self.unet, |streamed| streamed.bytes);
        let sampling = text + unet + self.sampling + self.preparing + beside(vae);
        let decoding = text + self.decoder + self.decoding + beside(self.unet + self.encoder);
        self.text.max(encoding).max(sampling).max(decoding) + ROUNDING
    }

    /// The least that is given up to fit into `budget`. `stream` says how the UNet's weights come
    /// and go within so many bytes, or how many would do.
    ///
    /// # Errors
    /// A budget that is too small whatever is given up, with what would do.
    pub fn within(
        &self,
        budget: Option<u64>,
        stream: impl Fn(u64) -> Result<std::result::Result<Streamed, TooLittle>>,
    ) -> Result<Savings> {
        let Some(budget) = budget else { return Ok(Savings::default()) };
        let fits = LEVELS.into_iter().find(|savings| self.peak(*savings) <= budget);
        if let Some(savings) = fits {
            return Ok(savings);
        }
        let beside = self.sampling + self.preparing + ROUNDING;
        let with = |streamed| Savings { streamed: Some(streamed), ..LEVELS[2] };
        let fewest = match stream(budget.saturating_sub(beside))? {
            Ok(streamed) if self.peak(with(streamed)) <= budget => return Ok(with(streamed)),
            // Something else is larger.
            Ok(streamed) => self.peak(with(streamed)),
            Err(TooLittle { least }) => {
                let none =
                    Streamed { bytes: least, held: Held::default(), within: 0, keys_values: 0 };
                self.peak(with(none))
            }
        };
        let least = fewest.min(self.peak(LEVELS[2]));
        Err(option(
            "memory",
            format!("{} MiB", budget >> 20),
            format!(
                "{} MiB at least for this picture by this model; a smaller picture, or weights of \
                    fewer bits, take less",
                least.div_ceil(1 << 20)
            ),
        ))
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
            streaming: savings.streamed.map(|streamed| streamed.held),
        }
    }
}

impl Savings {
    /// What it costs, in sentences; `parts` of a batch are sampled one after another. What
    /// streaming takes is [`super::Pipeline::streaming`]'s to say.
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
        let never = |_| Ok(Err(TooLittle { least: 1000 }));
        let level = |budget: u64| needs.within(Some(budget + ROUNDING), never).unwrap();
        assert_eq!(needs.within(None, never).unwrap(), LEVELS[0]);
        assert_eq!(level(1550), LEVELS[0]);
        assert_eq!(level(1549), LEVELS[1]);
        assert_eq!(level(1450), LEVELS[1]);
        assert_eq!(level(1449), LEVELS[2]);
        assert_eq!(level(1300), LEVELS[2]);
        let error = needs.within(Some(1299 + ROUNDING), never).unwrap_err().to_string();
        assert!(error.starts_with("memory is 0 MiB: expected 1 MiB at least"), "{error}");
        assert_eq!(needs.plan(LEVELS[2]).peak, 1300 + ROUNDING);
        assert_eq!((LEVELS[0].costs(3).len(), LEVELS[2].costs(3).len()), (0, 2));
    }

    #[test]
    fn weights_come_and_go_where_nothing_else_is_left() {
        let needs =
            Needs { text: 100, unet: 1000, sampling: 300, preparing: 20, ..Needs::default() };
        let stream = |room: u64| {
            let held =
                Held { stays: room - 50, places: 50, streamed: 1050 - room, blocks: 3, host: 0 };
            let streamed = Streamed { held, within: room, keys_values: 0, bytes: room };
            Ok(if room >= 60 { Ok(streamed) } else { Err(TooLittle { least: 60 }) })
        };
        let within = |budget: u64| needs.within(Some(budget + ROUNDING), stream);
        assert_eq!(within(1320).unwrap().streamed, None);
        let savings = within(1000).unwrap();
        let held = savings.streamed.unwrap().held;
        assert_eq!((held.bytes(), held.streamed), (680, 370));
        assert_eq!(needs.peak(savings), 1000 + ROUNDING);
        assert!(within(380).is_ok() && within(379).is_err());
        assert_eq!(needs.plan(savings).streaming, Some(held));
    }
}
