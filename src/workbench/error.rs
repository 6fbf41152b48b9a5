//! What can go wrong in the workbench, other than faults of kernels, which are results.

use std::path::PathBuf;

use crate::backend::wgpu::Mistake;
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
    #[error("unknown {what} `{name}`{known}")]
    Unknown {
        /// A kind, a set of shapes, a parameter.
        what: String,
        /// As it was asked for.
        name: String,
        /// The one that may be meant, and those that there are, as the end of a sentence.
        known: String,
    },
    /// A kernel that cannot be made to run.
    #[error("{kernel}: {message}")]
    Kernel {
        /// Its file, or its name; `FILE:LINE` where there is a line.
        kernel: String,
        /// What is wrong.
        message: String,
    },
    /// A kernel in which something was found that makes all else idle: it is not run, or what it
    /// gives is wrong.
    #[error("{kernel}: {message}")]
    Faulty {
        /// Its file, or its name.
        kernel: String,
        /// What was found.
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

impl Error {
    /// Of what is found in a kernel before it is measured: results that say nothing.
    pub(super) fn faulty(self) -> Error {
        match self {
            Error::Kernel { kernel, message } => Error::Faulty {
                kernel,
                message: format!(
                    "{message}; one that is for some sizes alone says so in its header, as in `//% \
                     needs columns % 4 == 0`"
                ),
            },
            other => other,
        }
    }

    /// A name that none of these has.
    pub(super) fn unknown(what: impl Into<String>, name: &str, known: &[&str]) -> Error {
        let known = backend::wgpu::advice(name, known);
        Error::Unknown { what: what.into(), name: name.into(), known }
    }
}

impl From<Mistake> for Error {
    fn from(Mistake { place, what }: Mistake) -> Error {
        Error::Kernel { kernel: place, message: what }
    }
}

impl From<backend::wgpu::Error> for Error {
    fn from(error: backend::wgpu::Error) -> Error {
        Error::Device(error.into())
    }
}

/// Of the workbench.
pub type Result<T, E = Error> = std::result::Result<T, E>;
