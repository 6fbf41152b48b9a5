//! In which precision a device holds weights.

use std::fmt;
use std::str::FromStr;

use crate::graph::StoredAs;

/// How weights are held on a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f16 where the file has 16 bits, f32 where it has 32.
    #[default]
    AsStored,
    /// Rounded to 16 bits, half of f32's memory.
    F16,
    /// Twice the memory of f16; nothing is rounded.
    F32,
}

impl Precision {
    /// All, in the order in which they are listed for people.
    pub const ALL: [Self; 3] = [Self::AsStored, Self::F16, Self::F32];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AsStored => "as-stored",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }

    /// Whether a weight that the file has as `stored` is held in 16 bits.
    pub(crate) fn is_half(self, stored: StoredAs) -> bool {
        match self {
            Precision::AsStored => stored != StoredAs::F32,
            Precision::F16 => true,
            Precision::F32 => false,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no precision's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown precision `{0}`: expected as-stored, f16 or f32")]
pub struct UnknownPrecision(pub String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> Result<Self, UnknownPrecision> {
        let found = Self::ALL.into_iter().find(|precision| precision.name() == name);
        found.ok_or_else(|| UnknownPrecision(name.to_string()))
    }
}
