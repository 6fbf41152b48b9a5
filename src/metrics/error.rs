//! What can be wrong with towers.

use std::path::PathBuf;

use crate::checkpoint::TowerKind;
use crate::{backend, checkpoint, picture, sd, text};

/// The projection of texts.
pub(super) const TEXT_PROJECTION: &str = "text_projection.weight";

/// What can be wrong with towers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{}: the model brings no vision tower (`image_encoder` or `clip_vision`), which \
        scores are measured with", .0.display())]
    /// The model, which brings no vision tower.
    NoVision(PathBuf),
    #[error("{}: no `{TEXT_PROJECTION}` in either tower's file, which scores of texts \
        need", .0.display())]
    /// The model, of whose towers neither has the texts' projection.
    NoProjection(PathBuf),
    /// A projection that does not fit the towers.
    #[error("{}: `{TEXT_PROJECTION}` is {found:?}, expected {expected:?}", path.display())]
    Projection {
        /// The model.
        path: PathBuf,
        /// Its shape.
        found: Vec<usize>,
        /// Outputs by inputs that the towers have.
        expected: Vec<usize>,
    },
    /// A tower that cannot be built or run.
    #[error("{}: {source}", path.display())]
    Network {
        /// The model.
        path: PathBuf,
        /// What the back end says.
        source: backend::Error,
    },
    #[error("{}: this is {found}, and {expected} is expected there", path.display())]
    /// A tower of another kind than what was asked for.
    OtherTower {
        /// The file or folder.
        path: PathBuf,
        /// What it is.
        found: TowerKind,
        /// What it should be.
        expected: String,
    },
    #[error("{}: {problem} are not supported", path.display())]
    /// A tower that is built in a way that is not computed here.
    Unsupported {
        /// The file or folder.
        path: PathBuf,
        /// What it has.
        problem: String,
    },
    #[error("{}: what it sees has values that are no numbers; its weights may be damaged",
        path.display())]
    /// A tower that gives no numbers.
    NotFinite {
        /// The file or folder.
        path: PathBuf,
    },
    /// The model, opened or run.
    #[error(transparent)]
    Model(Box<sd::Error>),
    /// A text that cannot be tokenized.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// A picture that cannot be scaled or cut.
    #[error(transparent)]
    Picture(#[from] picture::Error),
    /// The device.
    #[error(transparent)]
    Backend(#[from] backend::Error),
}

impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Error {
        Error::Model(Box::new(error.into()))
    }
}

impl From<sd::Error> for Error {
    fn from(error: sd::Error) -> Error {
        Error::Model(Box::new(error))
    }
}

/// Of the calls of towers.
pub type Result<T, E = Error> = std::result::Result<T, E>;
