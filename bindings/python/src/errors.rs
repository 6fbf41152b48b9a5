//! The library's errors as exceptions: one for each room, all of them an `Error`.

use std::error::Error as StdError;

use mixofshow::metrics::survey;
use mixofshow::pipeline::ModelError;
use mixofshow::pipeline::latents::LatentsError;
use mixofshow::pipeline::recipe::RecipeError;
use mixofshow::{
    backend, checkpoint, concept, fusion, metrics, picture, pipeline, region, training,
};
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

macro_rules! exceptions {
    ($($name:ident: $doc:literal),+ $(,)?) => {
        create_exception!(
            mixofshow,
            Error,
            PyException,
            "Anything that the library refuses or meets."
        );
        $(create_exception!(mixofshow, $name, Error, $doc);)+

        /// Names them in the module.
        pub fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
            let py = module.py();
            module.add("Error", py.get_type::<Error>())?;
            $(module.add(stringify!($name), py.get_type::<$name>())?;)+
            Ok(())
        }
    };
}

exceptions! {
    BackendError: "A device that cannot be opened, or what it met.",
    Cancelled: "The call was ended by its progress callback, which returned False.",
    CheckpointError: "A model's files.",
    ConceptError: "A concept or a LoRA.",
    FusionError: "A fusion.",
    MetricsError: "The scores of pictures.",
    PictureError: "A picture that is read or written.",
    PipelineError: "A request for pictures, or a model that cannot run.",
    RegionError: "Regions of a picture.",
    TrainingError: "The training of a concept, or its settings.",
}

/// An error of the library as an exception with the same words.
pub trait Raise {
    fn raise(self) -> PyErr;
}

/// The error and its causes, as the program `mos` prints them.
fn words(error: &dyn StdError) -> String {
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

/// `Type => Exception { variants that are another room's, or the end of the call }`.
macro_rules! raise {
    ($($error:ty => $exception:ident { $($pattern:pat => $raised:expr),* $(,)? })+) => {
        $(impl Raise for $error {
            fn raise(self) -> PyErr {
                #[allow(unreachable_patterns)]
                match self {
                    $($pattern => $raised,)*
                    error => $exception::new_err(words(&error)),
                }
            }
        })+
    };
}

raise! {
    mixofshow::Cancelled => Cancelled {}
    backend::Error => BackendError {}
    backend::wgpu::Error => BackendError {}
    checkpoint::Error => CheckpointError { checkpoint::Error::Cancelled(at) => at.raise() }
    concept::Error => ConceptError { concept::Error::Cancelled(at) => at.raise() }
    picture::Error => PictureError {}
    region::Error => RegionError {}
    LatentsError => PictureError { LatentsError::File(error) => error.raise() }
    RecipeError => PictureError { RecipeError::Picture(error) => error.raise() }
    ModelError => PipelineError {
        ModelError::Cancelled(at) => at.raise(),
        ModelError::Checkpoint(error) => error.raise(),
        ModelError::Concept(error) => error.raise(),
        ModelError::Backend(error) => error.raise(),
    }
    pipeline::Error => PipelineError {
        pipeline::Error::Cancelled(at) => at.raise(),
        pipeline::Error::Model(error) => error.raise(),
        pipeline::Error::Region(error) => error.raise(),
        pipeline::Error::Picture(error) => error.raise(),
    }
    metrics::Error => MetricsError {
        metrics::Error::Model(error) => error.raise(),
        metrics::Error::Picture(error) => error.raise(),
        metrics::Error::Backend(error) => error.raise(),
    }
    metrics::EvaluationError => MetricsError {
        metrics::EvaluationError::Cancelled(at) => at.raise(),
        metrics::EvaluationError::Towers(error) => error.raise(),
        metrics::EvaluationError::Pipeline(error) => error.raise(),
    }
    survey::Error => MetricsError {
        survey::Error::Cancelled(at) => at.raise(),
        survey::Error::Checkpoint(error) => error.raise(),
        survey::Error::Of(error) => error.raise(),
        survey::Error::Towers(error) => error.raise(),
        survey::Error::Picture(error) => error.raise(),
        survey::Error::Recipe(error) => error.raise(),
        survey::Error::Pipeline(error) => (*error).raise(),
    }
    training::config::Error => TrainingError {}
    training::Error => TrainingError {
        training::Error::Cancelled(at) => at.raise(),
        training::Error::Pipeline(error) => error.raise(),
        training::Error::Checkpoint(error) => error.raise(),
        training::Error::Concept(error) => error.raise(),
        training::Error::Picture(error) => error.raise(),
        training::Error::Backend(error) => error.raise(),
    }
    fusion::Error => FusionError {
        fusion::Error::Cancelled(at) => at.raise(),
        fusion::Error::Concepts(error) => error.raise(),
        fusion::Error::Checkpoint(error) => error.raise(),
        fusion::Error::Model(error) => error.raise(),
        fusion::Error::Backend(error) => error.raise(),
    }
}

/// An argument in words that no room of the library has.
pub fn argument(words: impl Into<String>) -> PyErr {
    PipelineError::new_err(words.into())
}

/// `?` on results of the library.
pub trait OrRaise<T> {
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: Raise> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(Raise::raise)
    }
}
