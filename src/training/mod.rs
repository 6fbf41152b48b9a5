//! Teaching a concept: ED-LoRA tuning (Mix-of-Show, arXiv 2305.18292, section 3.2), plain LoRA and
//! P+.

mod budget;
mod captions;
mod check;
pub mod config;
pub(crate) mod draws;
mod error;
mod examples;
pub mod folder;
mod listing;
mod orthogonal;
mod planning;
mod pool;
mod prior;
mod run;
mod saved;
mod schedule;
mod sheet;
pub mod step;
mod trained;
mod transform;
mod words;

pub use budget::Planned;
pub use captions::Templates;
pub use check::{Looked, look};
pub use error::{Error, Result};
pub use planning::{PlannedRun, plan};
pub use prior::ClassCost;
pub use run::{Begin, Event, Run, RunWatch, Summary, UpdateDone};
pub use saved::{About, Places, Saved};
