//! In which precision a device holds weights.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::graph::StoredAs;

/// How weights are held on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f16 where the file has 16 bits, f32 where it has 32; matrices in blocks of Q8_0 or Q4_0 stay
    /// so.
    #[default]
    AsStored,
    /// Rounded to 16 bits, half of f32's memory.
    F16,
    /// Twice the memory of f16; nothing is rounded.
    F32,
    /// Matrices in blocks of 8-bit numbers with a factor each, as GGUF's Q8_0 has them: half of
    /// f16's memory. Those stored in Q4_0 stay so. All else is in 16 bits.
    Q8,
    /// Matrices in blocks of 4-bit numbers with a factor each, as GGUF's Q4_0 has them: a little
    /// more than a quarter of f16's memory. All else is in 16 bits.
    Q4,
}

impl Precision {
    /// All, in the order in which they are listed for people.
    pub const ALL: [Self; 5] = [Self::AsStored, Self::F16, Self::F32, Self::Q8, Self::Q4];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AsStored => "as-stored",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8 => "q8_0",
            Self::Q4 => "q4_0",
        }
    }

    /// Whether a weight that the file has as `stored` is held in 16 bits.
    pub(crate) fn is_half(self, stored: StoredAs) -> bool {
        match self {
            Precision::AsStored => stored != StoredAs::F32,
            Precision::F16 | Precision::Q8 | Precision::Q4 => true,
            Precision::F32 => false,
        }
    }
}

/// What a graphics adapter rounds to f16 of networks whose weights are held so: pictures hang on it
/// as they do on the adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rounding {
    /// What is multiplied, by cooperative matrices.
    pub factors: bool,
    /// Activations, where they are kept.
    pub activations: bool,
}

impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match (self.factors, self.activations) {
            (true, true) => "factors and activations in f16",
            (true, false) => "factors in f16, activations in f32",
            (false, true) => "factors in f32, activations in f16",
            (false, false) => "factors and activations in f32",
        })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no precision's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown precision `{0}`: expected as-stored, f16, f32, q8_0 or q4_0")]
pub struct UnknownPrecision(pub String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        let found = Self::ALL.into_iter().find(|precision| precision.name() == name);
        found.ok_or_else(|| UnknownPrecision(name.to_string()))
    }
}
