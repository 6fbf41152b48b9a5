//! A concept in use.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Concept, Error, LowRankSet, Result};

/// A concept in use, with the strength of its updates. Its words do not depend on that: at 0 they
/// act alone.
#[derive(Clone, Debug)]
pub struct Applied {
    concept: Arc<Concept>,
    scale: f32,
    text: AppliedSet,
    unet: AppliedSet,
}

/// The updates of one network.
#[derive(Clone, Debug)]
pub struct AppliedSet {
    /// Tells these updates from all others: it is made of their contents.
    pub name: String,
    /// The whole factor: the set's own times the scale in use.
    pub strength: f32,
    concept: Arc<Concept>,
    of: fn(&Concept) -> &LowRankSet,
}

impl AppliedSet {
    fn new(concept: &Arc<Concept>, scale: f32, of: fn(&Concept) -> &LowRankSet) -> Self {
        let set = of(concept);
        AppliedSet {
            name: set_name(set),
            strength: set.scale * scale,
            concept: concept.clone(),
            of,
        }
    }

    pub fn set(&self) -> &LowRankSet {
        (self.of)(&self.concept)
    }

    /// The name of the concept that it belongs to.
    pub fn concept(&self) -> &str {
        &self.concept.name
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
        if !scale.is_finite() {
            return Err(Error::Scale { concept: concept.name, scale });
        }
        let concept = Arc::new(concept);
        let text = AppliedSet::new(&concept, scale, |concept| &concept.text);
        let unet = AppliedSet::new(&concept, scale, |concept| &concept.unet);
        Ok(Applied { concept, scale, text, unet })
    }

    pub fn concept(&self) -> &Concept {
        &self.concept
    }

    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Updates of the text encoder.
    pub fn text(&self) -> &AppliedSet {
        &self.text
    }

    /// Updates of the UNet.
    pub fn unet(&self) -> &AppliedSet {
        &self.unet
    }
}

fn set_name(set: &LowRankSet) -> String {
    let mut sha = Sha256::new();
    for (layer, update) in &set.layers {
        sha.update((layer.len() as u64).to_le_bytes());
        sha.update(layer);
        for array in [&update.down, &update.up] {
            array.shape.iter().for_each(|&n| sha.update((n as u64).to_le_bytes()));
            sha.update(bytemuck::cast_slice::<f32, u8>(array.values()));
        }
    }
    let digest = sha.finalize();
    let digits: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("concept-{digits}")
}
