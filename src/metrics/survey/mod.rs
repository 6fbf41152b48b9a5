//! A survey: pictures of each concept from a list of prompts, and of several concepts in their
//! regions, with scores; in a folder that an interrupted run goes on in, that many machines may
//! share, and whose parts merge to the same bytes in any order.
//!
//! In the folder: `settings.json`; `pictures/`, each picture with its recipe, beside it its scores
//! as JSON; and when all are there `results.json`, `table.md`, `index.html` and `sheets/`.

mod cast;
mod error;
mod item;
mod judges;
mod merge;
mod order;
mod page;
mod places;
mod prompts;
mod record;
mod report;
mod results;
mod run;
mod settings;
mod share;
mod subject;

pub use cast::{Cast, Wanted};
pub use error::{Error, Result};
pub use item::Item;
pub use judges::{Judge, Judges, Opened};
pub use merge::merge;
pub use order::{Order, SHIPPED_JUDGE, STAND_IN, Stage, check_apart};
pub use prompts::{Class, Prompt, PromptList};
pub use report::write;
pub use results::{Mean, Results, Row};
pub use run::{Done, Survey};
pub use settings::{ConceptSettings, FORMAT, SceneSettings, Settings, TowerSettings};
pub use share::Share;
pub use subject::{Reference, Subject};
