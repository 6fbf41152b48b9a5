//! One loaded model: a checkpoint opened, low-rank updates and fused weights laid over its weights,
//! its text encoders and its denoiser ready to run.
//!
//! [`Model`] is what the files say; a [`network::LoadedNetwork`] is one network on a device, whose
//! weights an [`Overlay`] gives. [`text`] encodes prompts, [`denoiser`] is one sampling step as a
//! graph, [`sampling`] runs it. The pipeline, training, fusion and metrics all stand on these.

pub(crate) mod compose;
pub(crate) mod denoiser;
mod error;
pub(crate) mod guided;
pub(crate) mod looking;
mod model;
pub(crate) mod network;
pub(crate) mod noise;
mod overlay;
pub(crate) mod sampling;
pub(crate) mod source;
pub(crate) mod text;
pub(crate) mod tokens;
pub(crate) mod updates;

pub use compose::{Compose, UnknownCompose};
pub use error::{Error, Result};
pub(crate) use model::tokenizer;
pub use model::{Model, Part, Reading, TextEncoder, Vision};
pub use overlay::Overlay;
pub use source::ComponentSource;
