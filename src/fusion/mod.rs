//! Fusion: several concepts in one set of base weights (Mix-of-Show's gradient fusion, arXiv 2305.18292, section 3.3).
pub mod solve;
pub mod statistics;

mod base;
mod collect;
mod error;
mod groups;
mod members;
mod settings;
mod spatial;
mod text;

pub use error::{Error, Result};
pub use groups::Stage;
pub use members::Entry;
pub use settings::{PUBLISHED_ITERATIONS, Settings, ordinary_prompts};
