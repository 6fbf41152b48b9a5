//! What can be wrong with a survey.

use std::path::PathBuf;

use crate::checkpoint;
use crate::concept;
use crate::metrics;
use crate::picture;
use crate::pipeline;
use crate::pipeline::recipe::RecipeError;
use crate::watch::Cancelled;

/// What can be wrong with a survey.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What is asked for does not go together.
    #[error("{0}")]
    Usage(String),
    /// The files of a model or of a concept.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A concept.
    #[error(transparent)]
    Of(#[from] concept::Error),
    /// A list of prompts that cannot be read.
    #[error("{}: {problem}", path.display())]
    Prompts {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A concept that cannot be asked for.
    #[error("concept `{concept}`: {problem}")]
    Concept {
        /// Its name.
        concept: String,
        /// What is wrong.
        problem: String,
    },
    /// A part that is none.
    #[error("{from}: {problem}")]
    Share {
        /// The option or variable.
        from: String,
        /// What is wrong.
        problem: String,
    },
    /// A folder of other settings.
    #[error(
        "{}: it was made with other settings, which differ in {}; name another folder, or say \
            --renew to make anew what differs",
        path.display(), differ.join(", ")
    )]
    Other {
        /// The folder.
        path: PathBuf,
        /// Keys of its settings.
        differ: Vec<String>,
    },
    /// A file in the folder that is not what it should be.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
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
    /// The watch asked it to end. What was made is kept.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The towers that score.
    #[error(transparent)]
    Towers(#[from] metrics::Error),
    /// A picture.
    #[error(transparent)]
    Picture(#[from] picture::Error),
    /// A picture's settings.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Boxed: it is large.
    #[error(transparent)]
    Pipeline(Box<pipeline::Error>),
}

impl From<pipeline::Error> for Error {
    fn from(error: pipeline::Error) -> Self {
        match error {
            pipeline::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Pipeline(Box::new(error)),
        }
    }
}

/// Of the calls of surveys.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(super) fn io(
        path: &std::path::Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, action, source }
    }

    pub(super) fn file(path: &std::path::Path, problem: impl Into<String>) -> Error {
        Error::File { path: path.to_path_buf(), problem: problem.into() }
    }
}
