//! What can be wrong with a fusion.

use std::path::PathBuf;

use crate::models::config::ConfigError;
use crate::scheduler::config::ScheduleError;
use crate::training::step;
use crate::watch::Cancelled;
use crate::{backend, checkpoint, concept, graph, sd, text};

/// What can be wrong with a fusion.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or an entry of a list.
    #[error("{option}: {problem}")]
    Option {
        /// The option, as the command line calls it, or the entry.
        option: String,
        /// What is wrong.
        problem: String,
    },
    /// A list of concepts that cannot be read.
    #[error("{}: {problem}", path.display())]
    List {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A concept that does not go with the model or with the other concepts.
    #[error("concept `{concept}`: {problem}")]
    Concept {
        /// The concept's name.
        concept: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of this program's making that is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Sums of inputs that cannot be solved for.
    #[error(
        "layer `{layer}`: the {width} inputs' sums are singular at a ridge of {ridge:.1e} of \
            their mean diagonal; give a larger --ridge"
    )]
    Singular {
        /// The first of the layers that share the inputs.
        layer: String,
        /// Inputs of the layer.
        width: usize,
        /// In parts of the mean diagonal.
        ridge: f64,
    },
    /// A network that gives no numbers.
    #[error(
        "{stage}, concept `{concept}`: the inputs of layer `{layer}` are not finite; its weights \
            or scales may be too large"
    )]
    NotFinite {
        /// The stage, for people.
        stage: &'static str,
        /// Whose inputs they are.
        concept: String,
        /// The layer's full name.
        layer: String,
    },
    /// The system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: a verb, such as "read".
        action: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The watch asked it to end. What was recorded is kept and found again.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A concept, or its file.
    #[error(transparent)]
    Concepts(Box<concept::Error>),
    /// The base model, or a file of statistics.
    #[error(transparent)]
    Checkpoint(checkpoint::Error),
    /// A configuration of the base model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The base model's scheduler.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Learning what the concepts' own models predict.
    #[error("distillation: {0}")]
    Distillation(#[from] step::Error),
    /// The base model, opened or run.
    #[error(transparent)]
    Model(Box<sd::Error>),
    /// A prompt, or a word in it.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// A graph that cannot be built.
    #[error(transparent)]
    Graph(#[from] graph::Error),
    /// The device.
    #[error(transparent)]
    Backend(#[from] backend::Error),
}

impl From<concept::Error> for Error {
    fn from(error: concept::Error) -> Error {
        Error::Concepts(Box::new(error))
    }
}

impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Error {
        match error {
            checkpoint::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Checkpoint(error),
        }
    }
}

impl From<sd::Error> for Error {
    fn from(error: sd::Error) -> Error {
        match error {
            sd::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Model(Box::new(error)),
        }
    }
}

/// Of the calls of fusion.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn option(option: impl Into<String>, problem: impl Into<String>) -> Error {
        Error::Option { option: option.into(), problem: problem.into() }
    }

    pub(super) fn concept(concept: &str, problem: impl Into<String>) -> Error {
        Error::Concept { concept: concept.into(), problem: problem.into() }
    }

    pub(super) fn file(path: &std::path::Path, problem: impl Into<String>) -> Error {
        Error::File { path: path.to_path_buf(), problem: problem.into() }
    }

    pub(super) fn io(
        path: &std::path::Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }
}
