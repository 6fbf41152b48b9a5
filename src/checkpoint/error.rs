//! What can be wrong with a checkpoint, in words that name the file, the tensor or key, what was
//! expected and what was found.
use std::io;
use std::path::PathBuf;

use crate::watch::Cancelled;

/// A checkpoint that cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused; `action` is a verb such as "read".
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The watch asked it to end; the file is not there, or is as it was before.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The header of a safetensors file is not what the format demands.
    #[error("{}: not a valid safetensors file: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The header describes one tensor wrongly.
    #[error("{}: tensor `{tensor}`: {problem}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// The tensors need another number of bytes than follow the header.
    #[error("{}: the header describes {expected} bytes of tensors, but {found} follow \
        it{}", path.display(),
        if found < expected { " (an incomplete download or copy?)" } else { "" })]
    DataLength {
        /// The file.
        path: PathBuf,
        /// Bytes that the header describes.
        expected: u64,
        /// Bytes in the file after the header.
        found: u64,
    },
    /// Not a file or folder that this program knows.
    #[error("{}: {problem}", path.display())]
    Unrecognised {
        /// The file or folder.
        path: PathBuf,
        /// What it looks like, and what would be right.
        problem: String,
    },
    /// A GGUF file that is not what the format demands.
    #[error("{}: not a GGUF file that can be read: {problem}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A pickle that is more, or less, than a file of tensors.
    #[error("{}: a Python pickle that cannot be read: {problem}", path.display())]
    Pickled {
        /// The file.
        path: PathBuf,
        /// What is wrong, or what it asks for.
        problem: String,
    },
    /// A part of a model folder is missing.
    #[error("{}: no {wanted}", folder.display())]
    MissingFile {
        /// The folder that was searched.
        folder: PathBuf,
        /// What was looked for.
        wanted: String,
    },
    /// A JSON file that cannot be read.
    #[error("{}: not valid JSON: {problem}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// A JSON file that says something impossible.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Two tensors of a file mean the same weight.
    #[error("{}: tensors `{first}` and `{second}` both mean `{canonical}`", path.display())]
    Ambiguous {
        /// The file.
        path: PathBuf,
        /// Name of one in the file.
        first: String,
        /// Name of the other.
        second: String,
        /// The canonical name of both.
        canonical: String,
    },
    /// Weights that the configuration implies are not in the file.
    #[error("{}", missing_text(path, tensors, *total, implied_by.as_deref(), closest.as_deref()))]
    MissingTensor {
        /// The file, or the folder of a component with several files.
        path: PathBuf,
        /// The first few missing names, canonical.
        tensors: Vec<String>,
        /// How many are missing altogether.
        total: usize,
        /// The configuration key that implies the first.
        implied_by: Option<String>,
        /// A name in the file that is much like the first.
        closest: Option<String>,
    },
    /// A weight has another shape than the configuration implies.
    #[error("{}: tensor `{tensor}` has shape {found:?}, expected {expected:?}{}", path.display(),
        implied_by.as_ref().map(|k| format!(" (from {k})")).unwrap_or_default())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// Canonical name.
        tensor: String,
        /// The shape that the configuration implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
        /// The configuration key that implies it.
        implied_by: Option<String>,
    },
}

impl Error {
    pub(crate) fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }
}

fn missing_text(
    path: &std::path::Path,
    tensors: &[String],
    total: usize,
    implied_by: Option<&str>,
    closest: Option<&str>,
) -> String {
    let names = tensors.iter().map(|t| format!("`{t}`")).collect::<Vec<_>>().join(", ");
    let mut text = match total {
        0 | 1 => format!("{}: tensor {names} is missing", path.display()),
        n if n > tensors.len() => {
            format!("{}: {n} tensors are missing: {names}, ...", path.display())
        }
        n => format!("{}: {n} tensors are missing: {names}", path.display()),
    };
    if let Some(key) = implied_by {
        text += &format!(" (implied by {key})");
    }
    if let Some(name) = closest {
        text += &format!("; the closest name in the file is `{name}`");
    }
    text
}
