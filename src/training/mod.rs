//! Teaching a concept: ED-LoRA tuning (Mix-of-Show, arXiv 2305.18292, section 3.2), plain LoRA and
//! P+.

pub mod captions;
mod check;
pub mod config;
pub mod draws;
mod error;
pub mod examples;
pub mod folder;
mod listing;
mod run;
pub mod saved;
mod schedule;
mod sheet;
pub mod step;
mod trained;
pub mod transform;
pub mod words;

pub use check::{Looked, look};
pub use error::{Error, Result};
pub use run::{Begin, Event, Run, RunWatch, Summary, UpdateDone};
pub use saved::Places;
