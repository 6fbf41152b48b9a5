//! What can be wrong with a concept, its file, or its use.

use std::path::PathBuf;

use crate::checkpoint;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A file that holds no concept, or one that this program cannot use.
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    /// One tensor of a file, as the file names it.
    #[error("{}: tensor `{tensor}`: {problem}", path.display())]
    Tensor { path: PathBuf, tensor: String, problem: String },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
