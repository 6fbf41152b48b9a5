//! What can go wrong with a loaded model.

use std::path::PathBuf;

use crate::models::config::ConfigError;
use crate::scheduler::config::ScheduleError;
use crate::watch::Cancelled;
use crate::{backend, checkpoint, concept, graph, text};

/// What can go wrong with a loaded model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A network that cannot be built or run from its files.
    #[error("{}: {source}", path.display())]
    Network {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: backend::Error,
    },
    /// Something that the model's files ask for and nothing here does.
    #[error("{}: {what} is not supported", path.display())]
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What they ask for.
        what: String,
    },
    /// A tensor that no binding of the device holds.
    #[error(
        "{what} needs {needed} MiB of device memory in one piece (layer `{layer}`), adapter \
            `{adapter}` allows {allowed} MiB; {hint}"
    )]
    TooLarge {
        /// What was planned.
        what: String,
        /// The layer that makes it.
        layer: String,
        /// MiB in one piece.
        needed: u64,
        /// MiB that the device allows.
        allowed: u64,
        /// The adapter's name.
        adapter: String,
        /// What would fit.
        hint: String,
    },
    /// A network gave values that are no numbers.
    #[error(
        "{stage}: the result has values that are no numbers; guidance or the scale of a concept \
            may be too large, or the model's weights damaged, or too large for f16"
    )]
    NotFinite {
        /// What was run: `sample`, `encode` or `decode`.
        stage: &'static str,
    },
    /// The watch asked it to end.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// More of the text encoder's layers are left out than it has.
    #[error("clip skip is {found}: expected less than the text encoder's {layers} layers")]
    ClipSkip {
        /// Layers to be left out.
        found: usize,
        /// Layers that there are.
        layers: usize,
    },
    /// A graph that cannot be built.
    #[error(transparent)]
    Graph(#[from] graph::Error),
    /// The device.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// A configuration that cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model's files.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A concept in use.
    #[error(transparent)]
    Concept(#[from] concept::Error),
    /// The model's scheduler, or a sampler.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The model's tokenizer, or a prompt.
    #[error(transparent)]
    Text(#[from] text::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
