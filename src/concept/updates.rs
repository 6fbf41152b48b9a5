//! The updates of a model's networks, layer by layer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::update::Update;
use crate::checkpoint::Network;

/// Updates of one network: each layer computes with its weight + scale * update.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateSet {
    /// The whole factor. Mix-of-Show's alpha is this; kohya's and PEFT's is divided by the rank.
    pub scale: f32,
    /// By the layer's full name in the network, e.g.
    /// `down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q`.
    pub layers: BTreeMap<String, Update>,
    /// What some kinds change besides, by the same names: the layers' biases.
    pub biases: BTreeMap<String, Update>,
}

/// What the parameters of a layer are called.
const WEIGHT: &str = ".weight";
const BIAS: &str = ".bias";

impl UpdateSet {
    const NONE: &UpdateSet =
        &UpdateSet { scale: 1.0, layers: BTreeMap::new(), biases: BTreeMap::new() };

    /// A set of full strength.
    pub fn new(layers: impl IntoIterator<Item = (String, Update)>) -> UpdateSet {
        UpdateSet::scaled(1.0, layers)
    }

    /// A set with a factor.
    pub fn scaled(scale: f32, layers: impl IntoIterator<Item = (String, Update)>) -> UpdateSet {
        UpdateSet { scale, layers: layers.into_iter().collect(), biases: BTreeMap::new() }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty() && self.biases.is_empty()
    }

    /// Layers of which anything is updated.
    pub fn len(&self) -> usize {
        self.layers.keys().chain(self.biases.keys()).collect::<BTreeSet<_>>().len()
    }

    /// The update of a parameter, by its full name: `<layer>.weight` or `<layer>.bias`.
    pub fn parameter(&self, name: &str) -> Option<&Update> {
        match name.strip_suffix(WEIGHT) {
            Some(layer) => self.layers.get(layer),
            None => self.biases.get(name.strip_suffix(BIAS)?),
        }
    }

    /// All parameters that are updated, by their full names.
    pub fn parameters(&self) -> impl Iterator<Item = (String, &Update)> {
        let weights =
            self.layers.iter().map(|(layer, update)| (format!("{layer}{WEIGHT}"), update));
        weights.chain(self.biases.iter().map(|(layer, u)| (format!("{layer}{BIAS}"), u)))
    }

    /// Layer and update of those that are more than a product of two matrices, or change a bias.
    pub fn beyond_lora(&self) -> impl Iterator<Item = (&String, &Update)> {
        self.layers.iter().filter(|(_, update)| update.lora().is_none()).chain(&self.biases)
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
        self.iter().map(|(_, set)| set.len()).sum()
    }

    /// The first update that is more than a product of two matrices, with its network and layer.
    pub fn beyond_lora(&self) -> Option<(Network, &String, &Update)> {
        self.iter().find_map(|(network, set)| {
            set.beyond_lora().next().map(|(layer, update)| (network, layer, update))
        })
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
