//! Concepts: what a tuned model knows beyond its base model, as files and in memory.
//!
//! A [`Concept`] is words, each with one embedding per cross-attention of the UNet, and low-rank
//! updates (LoRA) of both networks: ED-LoRA (Mix-of-Show, arXiv 2305.18292, section 3.2). A plain
//! LoRA is a concept without words, a textual inversion one without updates.

mod applied;
mod base;
pub(crate) mod binding;
mod caption;
pub mod dialects;
mod error;
mod extract;
mod file;
mod kind;
mod parts;
mod scaled;
mod tensors;
mod update;
mod updates;
mod vectors;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use crate::checkpoint::{ModelHash, Network};
use crate::graph::Array;

pub use applied::{Applied, AppliedSet};
pub use base::check_base;
pub use caption::{PLACEHOLDER, with_words};
pub use error::{Error, Result};
pub use extract::{Extracted, Share, extract};
pub use kind::ModelKind;
pub use scaled::ScaledFile;
pub use update::{Dora, Ia3, LoHa, LoKr, Lora, Piece, ReadPart, Right, Side, Update};
pub use updates::{UpdateSet, Updates};

/// What was trained of one thing on top of a base model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Concept {
    /// For people: the file's name without its ending where the file says nothing else.
    pub name: String,
    /// In the order in which they stand in a prompt.
    pub words: Vec<Word>,
    /// Updates (LoRA) of its networks.
    pub updates: Updates,
    /// The model that it was tuned on, where the file says so:
    /// [`crate::checkpoint::Checkpoint::base_hash`].
    pub base: Option<ModelHash>,
    /// Settings, seed and whatever else the file's writer left.
    pub metadata: BTreeMap<String, String>,
}

/// The metadata key of what it is one of.
pub(crate) const CLASS_WORD: &str = "mos_class_word";

impl Concept {
    /// What it is one of, in the base model's words, such as `man`: as its file says, or else what
    /// the last of its words started from that started from a word.
    pub fn class_word(&self) -> Option<&str> {
        let is_word = |text: &&str| !text.trim().is_empty() && !text.starts_with('<');
        let said = self.metadata.get(CLASS_WORD).map(String::as_str).filter(is_word);
        let mut started = self.words.iter().rev().filter_map(|word| word.initializer.as_deref());
        said.or_else(|| started.find(is_word))
    }
}

/// A word that the base model does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// As it stands in a prompt: `<zorp1>`.
    pub text: String,
    /// What it started from: a class word, or `<rand-0.013>`.
    pub initializer: Option<String>,
    /// For each text encoder, rows of its token table, f32 `[layers, width]`: one for each
    /// cross-attention of the UNet in the order down, middle, up; or `[1, width]`: one for all.
    pub rows: BTreeMap<Network, Array>,
}

impl Word {
    /// A word of a model with one text encoder.
    pub fn new(text: impl Into<String>, rows: Array) -> Word {
        Word { text: text.into(), initializer: None, rows: [(Network::TextEncoder, rows)].into() }
    }

    /// Its rows of a text encoder's token table; `[0, 0]` where it has none.
    pub fn rows(&self, network: Network) -> &Array {
        static NONE: LazyLock<Array> = LazyLock::new(|| Array::f32([0, 0], Vec::new()));
        self.rows.get(&network).unwrap_or(&NONE)
    }

    /// Embeddings that the word has: as many as the UNet has cross-attentions, or one.
    pub fn layers(&self) -> usize {
        self.rows.values().map(|rows| rows.shape.rows()).max().unwrap_or(0)
    }
}
