//! Concepts: what a tuned model knows beyond its base model, as files and in memory.
//!
//! A [`Concept`] is words, each with one embedding per cross-attention of the UNet, and low-rank
//! updates (LoRA) of both networks: ED-LoRA (Mix-of-Show, arXiv 2305.18292, section 3.2). A plain
//! LoRA is a concept without words, a textual inversion one without updates.

mod applied;
mod base;
pub mod binding;
pub mod caption;
pub mod dialects;
mod error;
mod file;
pub mod source;

use std::collections::BTreeMap;

pub use crate::checkpoint::ModelHash;
use crate::graph::Array;

pub use applied::{Applied, AppliedSet};
pub use base::check_base;
pub use error::{Error, Result};

/// What was learnt of one thing on top of a base model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Concept {
    /// For people: the file's name without its ending where the file says nothing else.
    pub name: String,
    /// In the order in which they stand in a prompt.
    pub words: Vec<Word>,
    /// Updates of the text encoder.
    pub text: LowRankSet,
    /// Updates of the UNet.
    pub unet: LowRankSet,
    /// The model that it was tuned on, where the file says so:
    /// [`crate::checkpoint::Checkpoint::base_hash`].
    pub base: Option<ModelHash>,
    /// Settings, seed and whatever else the file's writer left.
    pub metadata: BTreeMap<String, String>,
}

/// A word that the base model does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// As it stands in a prompt: `<zorp1>`.
    pub text: String,
    /// What it started from: a class word, or `<rand-0.013>`.
    pub initializer: Option<String>,
    /// Rows of the token table, f32 `[layers, width]`: one for each cross-attention of the UNet in
    /// the order down, middle, up; or `[1, width]`: one for all.
    pub rows: Array,
}

/// Low-rank updates of one network: each layer computes y + scale * up(down(x)).
#[derive(Clone, Debug, PartialEq)]
pub struct LowRankSet {
    /// The whole factor. Mix-of-Show's alpha is this; kohya's and PEFT's is divided by the rank.
    pub scale: f32,
    /// By the layer's full name in the network, e.g.
    /// `down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q`.
    pub layers: BTreeMap<String, Update>,
}

impl Default for LowRankSet {
    fn default() -> Self {
        LowRankSet { scale: 1.0, layers: BTreeMap::new() }
    }
}

/// The update of one linear layer or convolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// f32 `[rank, in]`, of a convolution with a window of k x k `[rank, in, k, k]`.
    pub down: Array,
    /// f32 `[out, rank]`
    pub up: Array,
}

impl Word {
    /// Embeddings that the word has: as many as the UNet has cross-attentions, or one.
    pub fn layers(&self) -> usize {
        self.rows.shape.rows()
    }

    /// Width of an embedding: that of the text encoder.
    pub fn width(&self) -> usize {
        self.rows.shape.channels()
    }
}

impl Update {
    pub fn rank(&self) -> usize {
        self.down.shape.first().copied().unwrap_or(0)
    }

    /// Shape of the weight that is updated: `[out, in]` or `[out, in, k, k]`.
    pub fn weight_shape(&self) -> Vec<usize> {
        let out = self.up.shape.first().copied().unwrap_or(0);
        std::iter::once(out).chain(self.down.shape.iter().skip(1).copied()).collect()
    }
}
