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
    #[error("{}", diverged(*.step, *.loss, .rates, .layer, .saved))]
    Diverged {
        /// The update, from 1 on.
        step: u64,
        /// What came of it.
        loss: f32,
        /// Learning rates of that update.
        rates: step::Rates,
        /// The first layer that made a value that is no number.
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

fn diverged(step: u64, loss: f32, rates: &step::Rates, layer: &str, saved: &Option<u64>) -> String {
    let what = match loss.is_finite() {
        true => format!("numbers beyond all bounds in its gradients (the loss is {loss})"),
        false => format!("a loss of {loss}"),
    };
    let step::Rates { rows, text, unet } = rates;
    let saved = match saved {
        Some(saved) => format!("the state of update {saved} is saved"),
        None => "nothing was saved yet".into(),
    };
    // Nothing has moved before the first.
    let try_first = match step {
        1 => {
            "Nothing was trained before it, so look at the model first: --precision f32 if its \
                weights are of 16 bits; then at --alpha and the pictures. --restart begins anew"
        }
        _ => {
            "Begin anew with --restart and lower rates (--words-lr, --text-lr, --unet-lr) or a \
                lower --alpha; with --precision f32 if the model's weights are of 16 bits; and \
                look at the pictures"
        }
    };
    format!(
        "update {step} gives {what}, from layer `{layer}` on; learning rates were {rows:.1e} for \
            the words, {text:.1e} for the text encoder and {unet:.1e} for the UNet; {saved}. \
            {try_first}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_diverges_says_when_and_what_to_try() {
        let text = |step, loss, saved| {
            let rates = step::Rates { rows: 1e-3, text: 1e-5, unet: 0.5 };
            Error::Diverged { step, loss, rates, layer: "unet.conv_in".into(), saved }.to_string()
        };
        let later = text(12, f32::NAN, Some(10));
        for part in [
            "update 12 gives a loss of NaN",
            "1.0e-3 for the words",
            "5.0e-1 for the UNet",
            "the state of update 10 is saved",
            "--restart and lower rates (--words-lr, --text-lr, --unet-lr)",
        ] {
            assert!(later.contains(part), "{part}: {later}");
        }
        let first = text(1, 0.5, None);
        assert!(first.contains("gradients (the loss is 0.5)"), "{first}");
        assert!(first.contains("nothing was saved yet. Nothing was trained before it"), "{first}");
    }
}
