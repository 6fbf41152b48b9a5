//! A concept in use.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Concept, Error, Network, Result, UpdateSet};

/// A concept in use, with the strength of its updates. Its words do not depend on that: at 0 they
/// act alone.
#[derive(Clone, Debug)]
pub struct Applied {
    concept: Arc<Concept>,
    sets: Vec<AppliedSet>,
}

/// The updates of one network in use.
#[derive(Clone, Debug)]
pub struct AppliedSet {
    /// Tells these updates from all others: it is made of their contents.
    pub name: String,
    /// The whole factor: the set's own times the scale in use.
    pub strength: f32,
    /// The name of the concept that it belongs to.
    pub concept: String,
    network: Network,
    set: Arc<UpdateSet>,
}

impl AppliedSet {
    /// `scale` 1 is as strong as the set was made.
    pub fn new(concept: &str, network: Network, set: &Arc<UpdateSet>, scale: f32) -> Self {
        AppliedSet {
            name: set_name(set),
            strength: set.scale * scale,
            concept: concept.to_string(),
            network,
            set: set.clone(),
        }
    }

    /// What it changes, layer by layer.
    pub fn set(&self) -> &UpdateSet {
        &self.set
    }

    /// A part of these updates, as strong as they are. `part` tells it from all others.
    pub(crate) fn part(&self, part: &str, set: UpdateSet) -> AppliedSet {
        AppliedSet {
            name: format!("{}-{part}", self.name),
            set: Arc::new(UpdateSet { scale: self.set.scale, ..set }),
            ..self.clone()
        }
    }
}

impl PartialEq for AppliedSet {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Applied {
    /// Puts a concept to use. `scale` 1 is as strong as it was tuned.
    ///
    /// # Errors
    /// A scale that is no number.
    pub fn new(concept: Concept, scale: f32) -> Result<Applied> {
        Applied::scaled(concept, |_| scale)
    }

    /// As [`Applied::new`], with a scale for each network.
    ///
    /// # Errors
    /// A scale that is no number.
    pub fn scaled(concept: Concept, scale: impl Fn(Network) -> f32) -> Result<Applied> {
        if let Some(scale) = Network::ALL.into_iter().map(&scale).find(|scale| !scale.is_finite()) {
            return Err(Error::Scale { concept: concept.name, scale });
        }
        let concept = Arc::new(concept);
        let set = |(network, set)| AppliedSet::new(&concept.name, network, set, scale(network));
        let sets = concept.updates.iter().map(set).collect();
        Ok(Applied { concept, sets })
    }

    /// The concept itself.
    pub fn concept(&self) -> &Concept {
        &self.concept
    }

    /// The updates of a network, if the concept has any.
    pub fn of(&self, network: Network) -> Option<&AppliedSet> {
        self.sets.iter().find(|set| set.network == network)
    }
}

fn set_name(set: &UpdateSet) -> String {
    let mut sha = Sha256::new();
    let biases = set.biases.iter().map(|(layer, update)| (format!("{layer} bias"), update));
    for (layer, update) in set.layers.iter().map(|(l, update)| (l.clone(), update)).chain(biases) {
        sha.update((layer.len() as u64).to_le_bytes());
        sha.update(&layer);
        sha.update(update.tag());
        for array in update.arrays() {
            array.shape.iter().for_each(|&n| sha.update((n as u64).to_le_bytes()));
            sha.update(bytemuck::cast_slice::<f32, u8>(array.values()));
        }
    }
    let digest = sha.finalize();
    let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("concept-{digits}")
}
