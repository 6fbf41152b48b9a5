//! What can go wrong between a request and its pictures.

use crate::scheduler::config::ScheduleError;
use crate::watch::Cancelled;
use crate::{backend, concept, picture, region, sd, text};

/// What can go wrong between a request and its pictures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option of the request.
    #[error("{option} is {found}: expected {expected}")]
    Option {
        /// Its name, as [`Request`](super::Request) calls it.
        option: &'static str,
        /// What was found.
        found: String,
        /// What is right in its place.
        expected: String,
    },
    /// The watch asked it to end.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The model, loaded or run.
    #[error(transparent)]
    Model(Box<sd::Error>),
    /// A layout of regions.
    #[error(transparent)]
    Region(#[from] region::Error),
    /// A picture that was given, or one that cannot be made.
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

/// Of the calls of pipelines.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of an option with a wrong value.
pub(super) fn option(
    option: &'static str,
    found: impl ToString,
    expected: impl Into<String>,
) -> Error {
    Error::Option { option, found: found.to_string(), expected: expected.into() }
}
