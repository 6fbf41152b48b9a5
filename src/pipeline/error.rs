//! What can go wrong between a request and its pictures.

use crate::scheduler::config::ScheduleError;
use crate::watch::Cancelled;
use crate::{backend, concept, picture, region, sd, text};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of the request.
    #[error("{option} is {found}: expected {expected}")]
    Option { option: &'static str, found: String, expected: String },
    /// The watch asked it to end.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Model(Box<sd::Error>),
    #[error(transparent)]
    Region(#[from] region::Error),
    #[error(transparent)]
    Picture(#[from] picture::Error),
}

/// What a model's parts meet is the model's error.
macro_rules! of_model {
    ($($source:ty),+) => {
        $(impl From<$source> for Error {
            fn from(error: $source) -> Error {
                Error::Model(Box::new(error.into()))
            }
        })+
    };
}

of_model!(backend::Error, concept::Error, ScheduleError, text::Error);

impl From<sd::Error> for Error {
    fn from(error: sd::Error) -> Error {
        match error {
            sd::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Model(Box::new(error)),
        }
    }
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
