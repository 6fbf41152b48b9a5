//! What can go wrong with a loaded model.

use std::path::PathBuf;

use crate::models::config::ConfigError;
use crate::scheduler::config::ScheduleError;
use crate::watch::Cancelled;
use crate::{backend, checkpoint, concept, graph, text};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A network that cannot be built or run from its files.
    #[error("{}: {source}", path.display())]
    Network { path: PathBuf, source: backend::Error },
    #[error("{}: {what} is not supported", path.display())]
    Unsupported { path: PathBuf, what: String },
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
    /// The watch asked it to end.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error("clip skip is {found}: expected less than the text encoder's {layers} layers")]
    ClipSkip { found: usize, layers: usize },
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
    Text(#[from] text::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
