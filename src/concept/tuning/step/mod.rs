//! One step of tuning as one plan: both networks forward, their gradients, and the optimiser.

mod config;
mod error;
mod source;

pub use config::{
    AdamW, AttentionLoss, Batch, Method, Models, Network, Rates, State, StepConfig, StepReport, TextLayers, TrainedLayer,
    UNetLayers,
};
pub use error::{Error, Result};
