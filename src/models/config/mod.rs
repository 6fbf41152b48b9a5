//! What a model's `config.json` says, typed, with the defaults that diffusers and transformers use
//! for a key that is absent.
//!
//! A configuration that asks for something this program does not compute is refused here, with the
//! key and the value named, rather than giving a wrong picture later.
mod clip;
mod control;
mod keys;
#[cfg(test)]
mod tests;
mod unet;
mod vae;
mod vit;

pub use clip::{ClipTextConfig, ClipVisionConfig};
pub use control::{ControlNetConfig, T2IAdapterConfig};
pub use unet::{Addition, MidBlock, UNetBlock, UNetConfig};
pub use vae::VaeConfig;
pub use vit::VitConfig;

use std::path::PathBuf;

/// A `config.json` that cannot be used, with the place and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not a JSON object.
    #[error("{}: expected a JSON object, found {found}", file.display())]
    NotAnObject {
        /// The configuration file.
        file: PathBuf,
        /// The kind of JSON value found.
        found: String,
    },
    /// A key has a value of the wrong type, or one that is out of range or contradicts another.
    #[error("{}: `{key}` is {found}, expected {expected}", file.display())]
    Invalid {
        /// The configuration file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What would be right.
        expected: String,
        /// The value as JSON.
        found: String,
    },
    /// A legal value that this program does not implement.
    #[error("{}: `{key}` = {found} is not supported (supported: {supported})", file.display())]
    Unsupported {
        /// The configuration file.
        file: PathBuf,
        /// The key.
        key: String,
        /// The value as JSON.
        found: String,
        /// What is supported.
        supported: String,
    },
}

/// The nonlinearity of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x); `silu` or `swish`.
    Silu,
    /// x * Phi(x), with the error function; `gelu`.
    Gelu,
    /// x * sigmoid(1.702 x); `quick_gelu`.
    QuickGelu,
}
