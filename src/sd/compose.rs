//! How several LoRAs act together while a picture is sampled (Zhong et al. 2024, "Multi-LoRA
//! composition for image generation", arXiv 2402.16843).

use std::fmt;
use std::str::FromStr;

/// How the LoRAs of a picture come together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compose {
    /// All of them act in every step.
    #[default]
    Together,
    /// One acts at a time, the next one after so many steps, in the order in which they are given,
    /// again and again.
    Switch(usize),
    /// Every step predicts once for each of them alone; the mean counts.
    Composite,
}

/// Steps after which the next one acts, as published.
const SWITCH: usize = 5;

/// What is none of the ways.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to compose LoRAs: expected together, switch, switch:STEPS or composite")]
pub struct UnknownCompose(String);

impl FromStr for Compose {
    type Err = UnknownCompose;

    fn from_str(text: &str) -> Result<Self, UnknownCompose> {
        let steps = |text: &str| text.parse().ok().filter(|steps| *steps > 0);
        match text.split_once(':') {
            None if text == "together" => Some(Compose::Together),
            None if text == "switch" => Some(Compose::Switch(SWITCH)),
            None if text == "composite" => Some(Compose::Composite),
            Some(("switch", count)) => steps(count).map(Compose::Switch),
            _ => None,
        }
        .ok_or_else(|| UnknownCompose(text.to_string()))
    }
}

impl fmt::Display for Compose {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Compose::Together => f.write_str("together"),
            Compose::Switch(steps) => write!(f, "switch:{steps}"),
            Compose::Composite => f.write_str("composite"),
        }
    }
}

impl Compose {
    /// Which of `count` LoRAs act alone in sampling step `step`, one after another; none: all act
    /// together.
    pub(crate) fn active(self, step: usize, count: usize) -> Vec<Option<usize>> {
        match self {
            Compose::Switch(steps) if count > 0 => vec![Some(step / steps.max(1) % count)],
            Compose::Composite if count > 0 => (0..count).map(Some).collect(),
            _ => vec![None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_turns() {
        for text in ["together", "switch:3", "composite"] {
            assert_eq!(text.parse::<Compose>().unwrap().to_string(), text);
        }
        assert_eq!("switch".parse(), Ok(Compose::Switch(5)));
        for wrong in ["switch:0", "switch:x", "composite:2", ""] {
            assert!(wrong.parse::<Compose>().is_err(), "{wrong}");
        }
        let turns: Vec<_> =
            (0..7).flat_map(|step| Compose::Switch(2).active(step, 3)).flatten().collect();
        assert_eq!(turns, [0, 0, 1, 1, 2, 2, 0]);
        assert_eq!(Compose::Composite.active(4, 2), [Some(0), Some(1)]);
        assert_eq!(Compose::Together.active(4, 2), [None]);
    }
}
