//! Low-rank updates of the models that are timed.

use std::collections::HashMap;

use clap::Args;

use crate::cli::values;
use mixofshow::graph::{Graph, Node, Origin};
use mixofshow::models::nn::{LoraSet, Strength};

/// What tells the updates' tensors from the model's.
const PREFIX: &str = "lora";

#[derive(Debug, Args)]
pub struct UpdateOptions {
    /// Of the UNet or the text encoder: with low-rank updates of this rank on all attention layers
    #[arg(long, value_name = "RANK", default_value_t = 0)]
    #[arg(value_parser = values::RANK.parser::<usize>())]
    lora_rank: usize,
    /// Sets of such updates
    #[arg(long, value_name = "SETS", default_value_t = 1)]
    #[arg(value_parser = values::TIMES.parser::<usize>())]
    lora_sets: usize,
    /// Of the UNet: every set acts on some places of the picture only
    #[arg(long)]
    lora_masks: bool,
}

impl UpdateOptions {
    /// Updates of the attention layers of `plain`. A pass that is `trained` has one set at least,
    /// as inputs.
    pub fn sets(&self, plain: &Graph, trained: bool) -> Vec<LoraSet> {
        const PARTS: [&str; 8] =
            [".to_q", ".to_k", ".to_v", ".to_out.0", ".q_proj", ".k_proj", ".v_proj", ".out_proj"];
        let rank = match self.lora_rank {
            0 if trained => 4,
            rank => rank,
        };
        if rank == 0 {
            return Vec::new();
        }
        let layer = |node: &Node| match &node.origin {
            Origin::Parameter { name } => name.strip_suffix(".weight").map(String::from),
            _ => None,
        };
        let is_updated = |layer: &String| {
            // Of the prompt, keys and values are made once a picture: in a masked pass they have no
            // part.
            let of_the_prompt = layer.ends_with("attn2.to_k") || layer.ends_with("attn2.to_v");
            PARTS.iter().any(|part| layer.ends_with(part)) && !(self.lora_masks && of_the_prompt)
        };
        let layers = plain.nodes().iter().filter_map(layer).filter(is_updated);
        let ranks: HashMap<String, usize> = layers.map(|layer| (layer, rank)).collect();
        let set = |number| {
            let mut set = LoraSet::new(format!("{PREFIX}{number}"), ranks.clone());
            set.trained = trained;
            if !trained {
                set.strength = Strength::Input;
            }
            set
        };
        (0..self.lora_sets).map(set).collect()
    }

    /// Declares a mask of each set for every feature map that starts from a square of `latent`
    /// places a side.
    pub fn mask(&self, sets: &mut [LoraSet], graph: &mut Graph, latent: usize) {
        if !self.lora_masks {
            return;
        }
        for set in sets {
            let halved = |side: &usize| (*side > 1).then(|| side.div_ceil(2));
            for side in std::iter::successors(Some(latent), halved) {
                set.masks.insert(
                    side * side,
                    graph.input(format!("{}.mask.{side}", set.name), [side * side]),
                );
            }
        }
    }
}

/// Whether an input of the graph is a matrix of an update.
pub fn is_matrix(input: &str) -> bool {
    input.starts_with(PREFIX) && input.ends_with(".weight")
}
