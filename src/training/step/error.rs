//! What can go wrong with a tuning step.

use crate::models::config::ConfigError;
use crate::scheduler::config::ScheduleError;

/// What can go wrong with a training step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A graph that cannot be built, or weights that are missing.
    #[error(transparent)]
    Graph(#[from] crate::graph::Error),
    /// The device.
    #[error(transparent)]
    Backend(#[from] crate::backend::Error),
    /// A configuration of the model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model's scheduler.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// A configuration of the step that makes no sense.
    #[error("`{option}` is {found}: expected {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was found.
        found: String,
        /// What is right in its place.
        expected: String,
    },
    /// A batch that does not fit the step.
    #[error("the batch's {what} is {found}: expected {expected}")]
    Batch {
        /// The part of it.
        what: &'static str,
        /// What was found.
        found: String,
        /// What is right in its place.
        expected: String,
    },
    /// A state that does not fit the step.
    #[error("the training state's `{name}` is {found}: expected {expected}")]
    State {
        /// The array.
        name: String,
        /// What was found.
        found: String,
        /// What is right in its place.
        expected: String,
    },
    /// A step was run before it was given a state.
    #[error("the tuning step has no state yet: it starts from one that is given")]
    NoState,
    /// Nothing has moved: the state is that before the step.
    #[error(
        "the loss of step {step} is {loss}: the first value that is not finite is made by \
            {operation} of layer `{layer}`"
    )]
    NotFinite {
        /// The update, from 1 on.
        step: u64,
        /// What came of it.
        loss: f32,
        /// The operation that made the first value that is no number.
        operation: String,
        /// Its layer.
        layer: String,
    },
}

/// Of the calls of training steps.
pub type Result<T, E = Error> = std::result::Result<T, E>;
