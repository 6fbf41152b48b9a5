//! Fusion: several concepts in one set of base weights (Mix-of-Show's gradient fusion, arXiv
//! 2305.18292, section 3.3).
pub mod solve;
mod statistics;

mod asked;
mod base;
mod batches;
mod collect;
mod distillation;
mod encodings;
mod error;
mod folder;
mod fuse;
mod groups;
mod lessons;
mod list;
mod members;
mod overlap;
mod page;
mod planning;
mod predictions;
mod previous;
mod replace;
mod report;
mod scenes;
mod settings;
mod spatial;
mod store;
mod teachers;
mod text;
mod tokenizer;
mod written;

pub use asked::{DistillationOptions, Unfit};
pub use error::{Error, Result};
pub use fuse::{Fused, GrowthCost, Order, fuse};
pub use groups::Stage;
pub use list::ListedConcept;
pub use members::ConceptToFuse;
pub use page::html;
pub use planning::{PlannedFusion, plan};
pub use previous::Previous;
pub use replace::check_output;
pub use report::{
    ConceptReport, Conflict, DistillationReport, Report, Residual, SceneReport, SiteReport,
    StageReport, markdown,
};
pub use settings::{Distillation, PUBLISHED_ITERATIONS, Settings, ordinary_prompts};
pub use spatial::StatisticsCost;
pub use statistics::Statistics;
pub use written::{NOTE_FILE, WORDS_FILE, note_report};
