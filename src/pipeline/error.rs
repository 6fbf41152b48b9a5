//! What can go wrong between a request and its pictures.

use std::path::PathBuf;

use crate::models::config::ConfigError;
use crate::scheduler::config::ScheduleError;
use crate::{backend, checkpoint, concept, graph, picture, region, text};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A network that cannot be built or run from its files.
    #[error("{}: {source}", path.display())]
    Network { path: PathBuf, source: backend::Error },
    #[error("{}: {what} is not supported", path.display())]
    Unsupported { path: PathBuf, what: String },
    /// An option of the request.
    #[error("{option} is {found}: expected {expected}")]
    Option { option: &'static str, found: String, expected: String },
    #[error(
        "{what} needs {needed} MiB of device memory in one piece (layer `{layer}`), adapter \
            `{adapter}` allows {allowed} MiB; {hint}"
    )]
    TooLarge {
        what: String,
        layer: String,
        needed: u64,
        allowed: u64,
        adapter: String,
        hint: String,
    },
    #[error(
        "{stage}: the result has values that are no numbers; the model's weights may be damaged, \
            or too large for f16"
    )]
    NotFinite { stage: &'static str },
    #[error(transparent)]
    Graph(#[from] graph::Error),
    #[error(transparent)]
    Backend(#[from] backend::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    #[error(transparent)]
    Concept(#[from] concept::Error),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error(transparent)]
    Region(#[from] region::Error),
    #[error(transparent)]
    Text(#[from] text::Error),
    #[error(transparent)]
    Picture(#[from] picture::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of an option with a wrong value.
pub(super) fn option(
    option: &'static str,
    found: impl ToString,
    expected: impl Into<String>,
) -> Error {
    Error::Option { option, found: found.to_string(), expected: expected.into() }
}
