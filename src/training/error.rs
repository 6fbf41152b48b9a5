//! What can go wrong with a tuning run.

use std::path::PathBuf;

use super::{config, step};
use crate::pipeline;
use crate::watch::Cancelled;
use crate::{backend, checkpoint, concept, picture, text};

/// What can go wrong with a tuning run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The watch asked it to end. All updates that are done are saved.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The settings.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// All that is wrong with what a run is made from.
    #[error("{}", list(.0))]
    Unfit(Vec<String>),
    /// The training step.
    #[error(transparent)]
    Step(#[from] step::Error),
    /// Boxed: it is large.
    #[error(transparent)]
    Pipeline(Box<pipeline::Error>),
    /// The base model's files, or a state's.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The concept file.
    #[error(transparent)]
    Concept(#[from] concept::Error),
    /// A word, or a caption.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// A picture, a mask, a sheet or the curve.
    #[error(transparent)]
    Picture(#[from] picture::Error),
    /// The device.
    #[error(transparent)]
    Backend(#[from] backend::Error),
    /// A folder or file that cannot be made.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A state, or a concept, that is in the way or does not belong to the run.
    #[error("{}: {problem}", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The run stands where it last was saved.
    #[error(
        "step {step}: the loss is {loss}; the first value that is no number comes from \
            {operation} of layer `{layer}`. {}",
        advice(.saved)
    )]
    Diverged {
        /// The update, from 1 on.
        step: u64,
        /// What came of it.
        loss: f32,
        /// The operation that made the first value that is no number.
        operation: String,
        /// Its layer.
        layer: String,
        /// The update that was saved last.
        saved: Option<u64>,
    },
}

impl From<pipeline::Error> for Error {
    fn from(error: pipeline::Error) -> Self {
        match error {
            pipeline::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Pipeline(Box::new(error)),
        }
    }
}

/// Of the calls of training.
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn list(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        several => {
            let lines: Vec<String> =
                several.iter().map(|problem| format!("\n  - {problem}")).collect();
            format!(
                "{} things have to be put right before this can be trained:{}",
                several.len(),
                lines.concat()
            )
        }
    }
}

fn advice(saved: &Option<u64>) -> String {
    let saved = match saved {
        Some(step) => format!("The state of step {step} is saved."),
        None => "Nothing was saved yet.".into(),
    };
    format!(
        "{saved} Try lower learning rates (--unet-lr, --text-lr, --words-lr); weights in f32 \
            (--precision f32), if the model's are \
         stored in 16 bits; a lower --alpha; and look at the pictures that were added last"
    )
}
