//! Whether activations are kept in f16.

use std::str::FromStr;

/// In which precision activations are kept, of networks whose weights are in f16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ActivationUse {
    /// f16 where products are made of cooperative matrices, which round to it in any case.
    #[default]
    Auto,
    /// f16, wherever the adapter has it.
    F16,
    /// f32.
    F32,
}

/// A word that says nothing about activations.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown precision `{0}` of activations: expected auto, f16 or f32")]
pub struct UnknownActivationUse(pub String);

impl FromStr for ActivationUse {
    type Err = UnknownActivationUse;

    fn from_str(word: &str) -> Result<Self, UnknownActivationUse> {
        match word {
            "auto" => Ok(ActivationUse::Auto),
            "f16" => Ok(ActivationUse::F16),
            "f32" => Ok(ActivationUse::F32),
            other => Err(UnknownActivationUse(other.to_string())),
        }
    }
}
