//! Low-rank updates (LoRA) of linear layers, kept beside the weights.

use std::collections::HashMap;

use super::Layers;
use crate::graph::{Result, Tensor};

/// A set of low-rank updates: each linear layer named in `ranks` computes y + `scale` * up(down(x)). The parameters are
/// `<name>.<layer>.lora_down.weight` `[rank, in]` and `<name>.<layer>.lora_up.weight` `[out, rank]`.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// What tells this set's parameters from the model's and from other sets'.
    pub name: String,
    /// The whole factor: a convention of alpha / rank is the caller's to apply.
    pub scale: f32,
    /// Rank of the update of each layer, by the layer's full name.
    pub ranks: HashMap<String, usize>,
    /// Tensors of the graph that are read instead of parameters, down and up by the layer's full name: a state that is trained.
    pub tensors: HashMap<String, (Tensor, Tensor)>,
}

impl Layers<'_> {
    /// Adds to `y` the updates of the layer being built, whose input is `x`.
    pub(super) fn add_low_rank(&mut self, x: Tensor, mut y: Tensor) -> Result<Tensor> {
        let layer = self.graph.path();
        let (into, out) = (self.channels(x), self.channels(y));
        for set in &self.low_rank {
            let Some(&rank) = set.ranks.get(&layer) else { continue };
            let (down, up) = match set.tensors.get(&layer) {
                Some(pair) => *pair,
                None => (
                    self.graph.parameter(format!("{}.{layer}.lora_down.weight", set.name), [rank, into]),
                    self.graph.parameter(format!("{}.{layer}.lora_up.weight", set.name), [out, rank]),
                ),
            };
            let narrow = self.graph.linear(x, down)?;
            let wide = self.graph.linear(narrow, up)?;
            let update = self.graph.scale(wide, set.scale)?;
            y = self.graph.add(y, update)?;
        }
        Ok(y)
    }
}
