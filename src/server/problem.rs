//! Why a request does not get what it asked for, in plain words; each face has its own form for it.

use std::error::Error as StdError;

use axum::http::StatusCode;

use crate::backend::Error as BackendError;
use crate::pipeline::ModelError;
use crate::{checkpoint, concept, picture, pipeline};

/// Why a request does not get what it asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    pub words: String,
    /// The field that is to blame.
    pub field: Option<String>,
    /// It was ended, by the client or by somebody else.
    pub is_cancelled: bool,
}

/// An error and its causes.
pub fn words(error: &dyn StdError) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Many errors name their cause themselves.
        if !words.contains(&text) {
            words += &format!(": {text}");
        }
        cause = error.source();
    }
    words
}

impl Problem {
    pub fn new(status: StatusCode, words: impl Into<String>) -> Problem {
        Problem { status, words: words.into(), field: None, is_cancelled: false }
    }

    /// What was asked for is not understood, or is not here.
    pub fn asked(words: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, words)
    }

    /// There is nothing of that name.
    pub fn missing(words: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, words)
    }

    /// Something else has that name.
    pub fn taken(words: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, words)
    }

    /// Something on this side.
    pub fn own(words: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, words)
    }

    pub fn cancelled(words: impl Into<String>) -> Problem {
        Problem { is_cancelled: true, ..Problem::new(StatusCode::CONFLICT, words) }
    }

    /// A field with a wrong value.
    pub fn value(field: &str, found: impl std::fmt::Display, expected: &str) -> Problem {
        let words = format!("{field} is {found}: expected {expected}");
        Problem { field: Some(field.to_string()), ..Problem::asked(words) }
    }

    /// The same with a field to blame.
    pub fn of(self, field: &str) -> Problem {
        Problem { field: Some(field.to_string()), ..self }
    }
}

impl From<pipeline::Error> for Problem {
    fn from(error: pipeline::Error) -> Problem {
        let words = words(&error);
        match error {
            pipeline::Error::Option { option, .. } => Problem::asked(words).of(option),
            pipeline::Error::Cancelled(_) => Problem::cancelled("it was cancelled"),
            pipeline::Error::Region(_) => Problem::asked(words).of("regions"),
            pipeline::Error::Picture(_) => Problem::asked(words),
            pipeline::Error::Model(error) => match *error {
                ModelError::Concept(_) => Problem::asked(words).of("concepts"),
                ModelError::Backend(_)
                | ModelError::Checkpoint(_)
                | ModelError::Network { .. }
                | ModelError::NotFinite { .. } => Problem::own(words),
                // What prompts and settings ask of the model.
                _ => Problem::asked(words),
            },
        }
    }
}

impl From<picture::Error> for Problem {
    fn from(error: picture::Error) -> Problem {
        Problem::asked(words(&error))
    }
}

macro_rules! own {
    ($($error:ty),+) => {
        $(impl From<$error> for Problem {
            fn from(error: $error) -> Problem {
                Problem::own(words(&error))
            }
        })+
    };
}

own!(
    checkpoint::Error,
    concept::Error,
    pipeline::recipe::RecipeError,
    BackendError,
    std::io::Error
);
