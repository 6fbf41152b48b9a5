//! What can go wrong with a tuning step.

use crate::models::config::ConfigError;
use crate::scheduler::config::ScheduleError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
    #[error(transparent)]
    Backend(#[from] crate::backend::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    #[error("`{option}` is {found}: expected {expected}")]
    Option { option: &'static str, found: String, expected: String },
    #[error("the batch's {what} is {found}: expected {expected}")]
    Batch { what: &'static str, found: String, expected: String },
    #[error("the training state's `{name}` is {found}: expected {expected}")]
    State { name: String, found: String, expected: String },
    #[error("the tuning step has no state yet: it starts from one that is given")]
    NoState,
    /// Nothing has moved: the state is that before the step.
    #[error(
        "the loss of step {step} is {loss}: the first value that is not finite is made by \
            {operation} of layer `{layer}`"
    )]
    NotFinite { step: u64, loss: f32, operation: String, layer: String },
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
