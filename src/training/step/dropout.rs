//! Dropout of low-rank updates, drawn from counters: what a batch leaves out depends on the run's
//! seed, the batch's number and the layer alone.
//!
//! As kohya's trainer defines it (`networks/lora.py` of sd-scripts): what the first matrix makes is
//! multiplied by 0, or by 1 / (1 - share), number by number (`lora_dropout`) and rank by rank
//! (`rank_dropout`).

use std::collections::HashMap;

use crate::graph::{Array, Graph, Shape, Tensor};
use crate::nn::LoraSet;

use super::super::draws::{Draws, Purpose};
use super::config::{Batch, StepConfig, TrainedLayer};
use super::parameter_group::{SET, full_name, network_prefix};

/// The input with a layer's factors.
pub(super) struct Factors {
    input: Tensor,
    shape: Shape,
    /// Of the layer, by the order of all layers' full names.
    layer: u64,
}

/// Those of all layers that the graph drops something of.
pub(super) fn factors(graph: &Graph, layers: &[TrainedLayer]) -> Vec<Factors> {
    let set = LoraSet::new(SET, HashMap::new());
    let full = |layer: &TrainedLayer| format!("{}.{}", network_prefix(layer.network), layer.name);
    let mut names: Vec<String> = layers.iter().map(full).collect();
    names.sort();
    let of = |layer: &TrainedLayer| {
        let name = full_name(layer.network, &layer.name);
        let input = graph.find_input(&set.dropout_input(&name))?;
        let shape = graph.shape(input).clone();
        let layer = names.binary_search(&full(layer)).ok()? as u64;
        Some(Factors { input, shape, layer })
    };
    layers.iter().filter_map(of).collect()
}

/// What the inputs are in `batch`.
pub(super) fn drawn(
    all: &[Factors],
    layers: usize,
    config: &StepConfig,
    batch: &Batch,
) -> Vec<(Tensor, Array)> {
    let draws = Draws::new(batch.seed);
    let of = |factors: &Factors| {
        let index = batch.number * layers as u64 + factors.layer;
        let (count, entries) = (factors.shape.elements(), factors.shape[0].max(1));
        let rank = factors.shape.channels().max(1);
        let mut values = match config.lora_dropout > 0.0 {
            true => draws.at(Purpose::Dropout, index).kept(count, config.lora_dropout).collect(),
            false => vec![1.0; count],
        };
        if config.rank_dropout > 0.0 {
            let mut numbers = draws.at(Purpose::RankDropout, index);
            let ranks: Vec<f32> = numbers.kept(entries * rank, config.rank_dropout).collect();
            let of_entry = (count / entries).max(1);
            for (entry, ranks) in values.chunks_exact_mut(of_entry).zip(ranks.chunks_exact(rank)) {
                for row in entry.chunks_exact_mut(rank) {
                    row.iter_mut().zip(ranks).for_each(|(value, factor)| *value *= factor);
                }
            }
        }
        (factors.input, Array::f32(factors.shape.clone(), values))
    };
    all.iter().map(of).collect()
}
