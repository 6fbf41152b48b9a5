//! What can go wrong in the workbench, other than faults of kernels, which are results.

use std::path::PathBuf;

use crate::{backend, graph};

/// What keeps a kernel from being looked at.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not, or what is wrong with what it says.
        message: String,
    },
    /// A name that nothing has.
    #[error("unknown {what} `{name}`; there are {known}")]
    Unknown {
        /// A kind, a set of shapes, a parameter.
        what: &'static str,
        /// As it was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A kernel that cannot be made to run.
    #[error("{kernel}: {message}")]
    Kernel {
        /// Its file, or its name.
        kernel: String,
        /// What is wrong, with the line where there is one.
        message: String,
    },
    /// Of the device.
    #[error(transparent)]
    Device(#[from] backend::Error),
    /// Of a graph.
    #[error(transparent)]
    Graph(#[from] graph::Error),
    /// The caller ended it.
    #[error("cancelled")]
    Cancelled,
}

impl From<backend::wgpu::Error> for Error {
    fn from(error: backend::wgpu::Error) -> Error {
        Error::Device(error.into())
    }
}

/// Of the workbench.
pub type Result<T, E = Error> = std::result::Result<T, E>;
