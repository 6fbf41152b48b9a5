//! Everything that is trained, as few long vectors: one update moves a whole group, and its matrices
//! are ranges of it.

use std::collections::HashMap;

use crate::graph;
use crate::graph::{Graph, Tensor};
use crate::nn::{Dropout, Layers, LoraSet, Strength};

use super::config::{Network, SECOND, StepConfig, TrainedLayer};
use super::error::Result;

/// What shares a learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    Rows,
    Text,
    UNet,
}

impl Rate {
    /// The input with the numbers of its update.
    pub fn rates_name(self) -> &'static str {
        match self {
            Rate::Rows => "rates.rows",
            Rate::Text => "rates.text",
            Rate::UNet => "rates.unet",
        }
    }
}

/// A vector of numbers that are trained, with their moments.
pub(super) struct ParameterGroup {
    pub rate: Rate,
    /// It moves; else only its numbers are held, without moments.
    pub trained: bool,
    /// What the input is called that holds them.
    pub name: String,
    /// That input: `[3, count]`, or `[1, count]` where it stands still.
    pub state: Tensor,
    /// The input with the sum of their gradients, where batches are summed.
    pub sum: Option<Tensor>,
    pub count: usize,
    pub parts: Vec<Part>,
}

/// What a group's matrices have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    rate: Rate,
    trained: bool,
}

/// One matrix of a group.
pub(super) struct Part {
    /// As [`super::State`] calls it.
    pub name: String,
    pub shape: [usize; 2],
    /// Where it starts in the group.
    pub start: usize,
    pub tensor: Tensor,
}

/// The name of what is trained, in the graph.
pub(super) const SET: &str = "trained";

/// Numbers in a group: all three vectors of it stay far below what one binding may have.
const MOST: usize = 4 << 20;

/// What the names of a network's matrices begin with in a state.
pub fn network_prefix(network: Network) -> &'static str {
    match network {
        Network::TextEncoder => "text",
        Network::TextEncoder2 => "text_2",
        Network::UNet => "unet",
    }
}

/// What a network's words' rows are called in a state.
pub fn rows_name(network: Network) -> &'static str {
    match network {
        Network::TextEncoder2 => "rows_2",
        Network::TextEncoder | Network::UNet => "rows",
    }
}

/// What the graph calls a layer of a network.
pub(super) fn full_name(network: Network, layer: &str) -> String {
    match network {
        Network::TextEncoder2 => format!("{SECOND}.{layer}"),
        Network::TextEncoder | Network::UNet => layer.to_string(),
    }
}

/// Builds layers of a network where the graph has them.
pub(super) fn within<T>(
    layers: &mut Layers,
    network: Network,
    build: impl FnOnce(&mut Layers) -> graph::Result<T>,
) -> graph::Result<T> {
    match network {
        Network::TextEncoder2 => layers.within(SECOND, build),
        Network::TextEncoder | Network::UNet => build(layers),
    }
}

/// Names that the layers' matrices have in the state and in concept files.
pub(super) fn part_names(layer: &TrainedLayer) -> [String; 2] {
    let network = network_prefix(layer.network);
    ["down", "up"].map(|part| format!("{network}.{}.lora_{part}.weight", layer.name))
}

/// Adds the inputs of all groups to the graph, and their matrices: the concept words' `rows` of each
/// text encoder if any are trained, then the layers'. With `fixed_down` the layers' first matrices
/// are groups of their own that stand still.
pub(super) fn groups(
    graph: &mut Graph,
    rows: &[(Network, [usize; 2])],
    layers: &[TrainedLayer],
    fixed_down: bool,
) -> Result<Vec<ParameterGroup>> {
    let rows = rows.iter().map(|&(of, shape)| {
        let kind = Kind { rate: Rate::Rows, trained: true };
        (kind, rows_name(of).to_string(), shape)
    });
    let mut matrices: Vec<(Kind, String, [usize; 2])> = rows.collect();
    let mut fixed = Vec::new();
    for layer in layers {
        let rate = if layer.network.is_text_encoder() { Rate::Text } else { Rate::UNet };
        let [down, up] = part_names(layer);
        let kind = |trained| Kind { rate, trained };
        let downs = if fixed_down { &mut fixed } else { &mut matrices };
        downs.push((kind(!fixed_down), down, [layer.rank, layer.into]));
        matrices.push((kind(true), up, [layer.out, layer.rank]));
    }
    matrices.extend(fixed);
    let mut groups = Vec::new();
    let mut rest = &matrices[..];
    while let Some((kind, ..)) = rest.first() {
        let (mut length, mut count) = (0, 0);
        for (other, _, [height, width]) in rest {
            if other != kind || length > 0 && count + height * width > MOST {
                break;
            }
            count += height * width;
            length += 1;
        }
        let (now, later) = rest.split_at(length);
        groups.push(group(graph, *kind, groups.len(), count, now)?);
        rest = later;
    }
    Ok(groups)
}

fn group(
    graph: &mut Graph,
    Kind { rate, trained }: Kind,
    number: usize,
    count: usize,
    matrices: &[(Kind, String, [usize; 2])],
) -> Result<ParameterGroup> {
    let name = format!("state.{number}");
    let vectors = if trained { 3 } else { 1 };
    let state = graph.input(&name, [vectors, count]);
    let flat = graph.reshape(state, [vectors * count])?;
    let mut parts = Vec::with_capacity(matrices.len());
    let mut start = 0;
    for (_, name, shape) in matrices {
        let elements = shape[0] * shape[1];
        let tensor = graph.slice(flat, 0, start, elements)?;
        let tensor = graph.reshape(tensor, *shape)?;
        parts.push(Part { name: name.clone(), shape: *shape, start, tensor });
        start += elements;
    }
    Ok(ParameterGroup { rate, trained, name, state, sum: None, count, parts })
}

/// The updates of one network, which read the groups.
pub(super) fn given(
    groups: &[ParameterGroup],
    network: Network,
    config: &StepConfig,
) -> Vec<LoraSet> {
    let (rate, rank) = match network.is_text_encoder() {
        true => (Rate::Text, config.text_rank),
        false => (Rate::UNet, config.unet_rank),
    };
    let prefix = format!("{}.", network_prefix(network));
    let parts: HashMap<&str, Tensor> = groups
        .iter()
        .filter(|group| group.rate == rate)
        .flat_map(|group| &group.parts)
        .map(|part| (part.name.as_str(), part.tensor))
        .collect();
    let mut set = LoraSet::new(SET, HashMap::new());
    set.strength = Strength::Fixed(config.alpha);
    set.dropout = match (config.lora_dropout > 0.0, config.rank_dropout > 0.0) {
        (true, _) => Some(Dropout::Numbers),
        (false, true) => Some(Dropout::Ranks),
        (false, false) => None,
    };
    for (name, &down) in &parts {
        let Some(layer) =
            name.strip_prefix(&*prefix).and_then(|name| name.strip_suffix(".lora_down.weight"))
        else {
            continue;
        };
        let Some(&up) = parts.get(format!("{prefix}{layer}.lora_up.weight").as_str()) else {
            continue;
        };
        set.ranks.insert(full_name(network, layer), rank);
        set.tensors.insert(full_name(network, layer), (down, up));
    }
    if set.tensors.is_empty() { Vec::new() } else { vec![set] }
}
