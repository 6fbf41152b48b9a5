//! What a concept changes in a model's networks, layer by layer.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::Network;
use crate::graph::Array;

/// The change of one linear layer or convolution.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// A product of two small matrices.
    Lora(Lora),
}

/// A low-rank update: the weight's change is up down (Hu et al. 2021, "LoRA").
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// f32 `[rank, in]`, of a convolution with a window of k x k `[rank, in, k, k]`.
    pub down: Array,
    /// f32 `[out, rank]`
    pub up: Array,
}

impl Update {
    /// Its factors, where it is of low rank: such an update can be computed beside the layer.
    pub fn lora(&self) -> Option<&Lora> {
        match self {
            Update::Lora(lora) => Some(lora),
        }
    }

    /// Shape of the weight that is updated: `[out, in]` or `[out, in, k, k]`.
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Update::Lora(lora) => lora.weight_shape(),
        }
    }

    /// Channels that the layer reads and writes.
    pub fn channels(&self) -> (usize, usize) {
        let shape = self.weight_shape();
        (shape.get(1).copied().unwrap_or(0), shape.first().copied().unwrap_or(0))
    }

    /// Adds `strength` times the elements `range` of the change, row-major, to `values`.
    pub fn add_to(&self, strength: f32, range: Range<usize>, values: &mut [f32]) {
        match self {
            Update::Lora(lora) => lora.add_to(strength, range, values),
        }
    }

    /// The same change, `factor` times as strong.
    pub fn scaled(&self, factor: f32) -> Update {
        match self {
            Update::Lora(Lora { down, up }) => {
                Update::Lora(Lora { down: down.clone(), up: times(up, factor) })
            }
        }
    }

    /// All of its numbers, in a fixed order.
    pub fn arrays(&self) -> Vec<&Array> {
        match self {
            Update::Lora(Lora { down, up }) => vec![down, up],
        }
    }
}

/// An array, each of its numbers times `factor`.
fn times(array: &Array, factor: f32) -> Array {
    Array::f32(array.shape.clone(), array.values().iter().map(|v| v * factor).collect())
}

impl From<Lora> for Update {
    fn from(lora: Lora) -> Update {
        Update::Lora(lora)
    }
}

impl Lora {
    /// Columns of `up`, which are the rows of `down`.
    pub fn rank(&self) -> usize {
        self.down.shape.first().copied().unwrap_or(0)
    }

    fn weight_shape(&self) -> Vec<usize> {
        let out = self.up.shape.first().copied().unwrap_or(0);
        std::iter::once(out).chain(self.down.shape.iter().skip(1).copied()).collect()
    }

    fn add_to(&self, strength: f32, range: Range<usize>, values: &mut [f32]) {
        let rank = self.rank().max(1);
        let (up, down) = (self.up.values(), self.down.values());
        let width = (down.len() / rank).max(1);
        let mut at = range.start;
        let mut rest = values;
        while !rest.is_empty() && at < range.end {
            let (row, first) = (at / width, at % width);
            let count = (width - first).min(rest.len());
            let (here, after) = rest.split_at_mut(count);
            let factors = up.iter().skip(row * rank).take(rank);
            for (factor, line) in factors.zip(down.chunks_exact(width)) {
                let line = line.get(first..first + count).unwrap_or_default();
                here.iter_mut().zip(line).for_each(|(value, d)| *value += strength * factor * d);
            }
            (rest, at) = (after, at + count);
        }
    }
}

/// Updates of one network: each layer computes with its weight + scale * update.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateSet {
    /// The whole factor. Mix-of-Show's alpha is this; kohya's and PEFT's is divided by the rank.
    pub scale: f32,
    /// By the layer's full name in the network, e.g.
    /// `down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q`.
    pub layers: BTreeMap<String, Update>,
}

impl UpdateSet {
    const NONE: &UpdateSet = &UpdateSet { scale: 1.0, layers: BTreeMap::new() };

    /// A set of full strength.
    pub fn new(layers: impl IntoIterator<Item = (String, Update)>) -> UpdateSet {
        UpdateSet { layers: layers.into_iter().collect(), ..UpdateSet::default() }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

impl Default for UpdateSet {
    fn default() -> Self {
        UpdateSet::NONE.clone()
    }
}

/// Updates of all networks of a model.
#[derive(Clone, Debug, Default)]
pub struct Updates(BTreeMap<Network, Arc<UpdateSet>>);

impl Updates {
    /// The updates of a network; an empty set where it has none.
    pub fn of(&self, network: Network) -> &UpdateSet {
        self.0.get(&network).map_or(UpdateSet::NONE, |set| set)
    }

    /// The updates of one network, to be changed.
    pub fn of_mut(&mut self, network: Network) -> &mut UpdateSet {
        Arc::make_mut(self.0.entry(network).or_default())
    }

    /// The networks that are updated, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Network, &Arc<UpdateSet>)> {
        self.0.iter().filter(|(_, set)| !set.is_empty()).map(|(network, set)| (*network, set))
    }

    /// No layer of any network is updated.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Layers that are updated, in all networks.
    pub fn len(&self) -> usize {
        self.iter().map(|(_, set)| set.layers.len()).sum()
    }
}

/// Sets without layers say nothing.
impl PartialEq for Updates {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl FromIterator<(Network, UpdateSet)> for Updates {
    fn from_iter<T: IntoIterator<Item = (Network, UpdateSet)>>(sets: T) -> Self {
        Updates(sets.into_iter().map(|(network, set)| (network, Arc::new(set))).collect())
    }
}

impl<const N: usize> From<[(Network, UpdateSet); N]> for Updates {
    fn from(sets: [(Network, UpdateSet); N]) -> Self {
        sets.into_iter().collect()
    }
}
