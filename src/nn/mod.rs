//! Layers, in terms of graph operations.
//!
//! [`Layers`] gives every layer one method whose first argument is its name:
//! `layers.linear("to_q", x, 320)`. Names nest with [`Layers::within`], and the full dotted name is
//! at once the place that errors tell, and the parameter's name in the checkpoint
//! (`down_blocks.0.attentions.0.proj_in.weight`). Input widths are read from the tensors, so that
//! only what a layer chooses is written: a checkpoint of other widths is reported by its
//! parameters' shapes.

mod attention;
mod clip;
mod conv;
mod hooks;
mod linear;
mod lora;
mod norm;
mod prompt;
mod resnet;
mod time_embedding;
mod transformer;
mod word_maps;

pub use clip::ClipLayer;
pub use hooks::Hook;
pub use lora::{Dropout, LoraSet, Strength};
pub use prompt::{Encodings, Prompt, RegionSize};
pub use resnet::Resnet;
pub use time_embedding::sinusoids;
pub use transformer::Transformer;
pub use word_maps::{WatchedWords, WordMap, prompt_values, word_values};

use std::fmt::Display;

use crate::graph::{Graph, Result, Shape, Tensor};
use lora::Updates;

/// A graph under construction, with what layers need besides.
#[derive(Debug)]
pub struct Layers<'g> {
    /// Where layers' operations are added.
    pub graph: &'g mut Graph,
    updates: Updates,
    given_statistics: bool,
    hooks: hooks::Hooks,
    watch: Option<word_maps::Watch>,
}

impl<'g> Layers<'g> {
    /// Layers without updates.
    pub fn new(graph: &'g mut Graph) -> Self {
        Layers {
            graph,
            updates: Updates::default(),
            given_statistics: false,
            watch: None,
            hooks: hooks::Hooks::default(),
        }
    }

    /// The same, with low-rank updates added to the linear layers and convolutions that they name.
    pub fn with_loras(graph: &'g mut Graph, low_rank: Vec<LoraSet>) -> Self {
        Layers {
            graph,
            updates: Updates::new(low_rank),
            given_statistics: false,
            watch: None,
            hooks: hooks::Hooks::default(),
        }
    }

    /// The same, with the statistics of every group normalisation given as an input
    /// `statistics.<layer>` `[batch, groups, 2]`: a part of a picture is then normalised as the
    /// whole is.
    pub fn with_given_statistics(graph: &'g mut Graph) -> Self {
        Layers {
            graph,
            updates: Updates::default(),
            given_statistics: true,
            watch: None,
            hooks: hooks::Hooks::default(),
        }
    }

    /// Builds the layers inside of `name`.
    pub fn within<T>(
        &mut self,
        name: impl Display,
        build: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.graph.enter(name.to_string());
        let built = build(self);
        self.graph.leave();
        built
    }

    /// Builds the layers of a block, whose activations may be computed again for its backward: see
    /// [`Graph::enter_block`].
    pub fn block<T>(&mut self, build: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.graph.enter_block();
        let built = build(self);
        self.graph.leave_block();
        built
    }

    /// The parameter `name` of the layer being built.
    pub fn parameter(&mut self, name: &str, shape: impl Into<Shape>) -> Tensor {
        let path = self.graph.path();
        let full = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
        self.graph.parameter(full, shape)
    }

    /// Channels of `x`.
    pub fn channels(&self, x: Tensor) -> usize {
        self.graph.shape(x).channels()
    }

    /// `x` as `[batch, height, width, channels]`; an error that names `layer` if it has other
    /// dimensions.
    pub fn image(&self, x: Tensor, layer: &'static str) -> Result<[usize; 4]> {
        self.graph.shape(x).image().map_err(|message| self.graph.shape_error(layer, message))
    }

    /// `x` as `[batch, tokens, channels]`; an error that names `layer` if it has other dimensions.
    pub fn tokens(&self, x: Tensor, layer: &'static str) -> Result<[usize; 3]> {
        self.graph.shape(x).tokens().map_err(|message| self.graph.shape_error(layer, message))
    }
}
