//! What can go wrong with a tuning run.

use std::path::PathBuf;

use super::{config, step};
use crate::pipeline;
use crate::watch::Cancelled;
use crate::{backend, checkpoint, concept, picture, text};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The watch asked it to end. All updates that are done are saved.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Config(#[from] config::Error),
    /// All that is wrong with what a run is made from.
    #[error("{}", list(.0))]
    Unfit(Vec<String>),
    #[error(transparent)]
    Step(#[from] step::Error),
    /// Boxed: it is large.
    #[error(transparent)]
    Pipeline(Box<pipeline::Error>),
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    #[error(transparent)]
    Concept(#[from] concept::Error),
    #[error(transparent)]
    Text(#[from] text::Error),
    #[error(transparent)]
    Picture(#[from] picture::Error),
    #[error(transparent)]
    Backend(#[from] backend::Error),
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable { path: PathBuf, source: std::io::Error },
    #[error("{}: {problem}", path.display())]
    State { path: PathBuf, problem: String },
    /// The run stands where it last was saved.
    #[error(
        "step {step}: the loss is {loss}; the first value that is no number comes from \
            {operation} of layer `{layer}`. {}",
        advice(.saved)
    )]
    Diverged { step: u64, loss: f32, operation: String, layer: String, saved: Option<u64> },
}

impl From<pipeline::Error> for Error {
    fn from(error: pipeline::Error) -> Self {
        match error {
            pipeline::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Pipeline(Box::new(error)),
        }
    }
}

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
