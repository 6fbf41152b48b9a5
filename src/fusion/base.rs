//! The model that concepts are fused into, and what earlier stages changed in its weights.

use std::path::Path;
use std::sync::Arc;

use crate::backend::{Device, Precision};
use crate::checkpoint::{
    Checkpoint, Component, ModelHash, TensorFile, TensorView, base_hash_cache,
};
use crate::concept::AppliedSet;
use crate::models::config::{ClipTextConfig, UNetConfig};
use crate::sd::network::LoadedNetwork;
use crate::sd::source::ComponentSource;
use crate::sd::updates::Updates;
use crate::sd::{Model, Overlay, Part};
use crate::text::Tokenizer;

use super::Result;
use crate::watch::Watch;

/// A checkpoint, read as far as fusion needs it.
pub(super) struct Base<'a> {
    pub checkpoint: &'a Checkpoint,
    pub hash: ModelHash,
    pub model: Model,
}

impl<'a> Base<'a> {
    pub fn open(checkpoint: &'a Checkpoint, watch: &mut Watch) -> Result<Base<'a>> {
        Ok(Base {
            hash: checkpoint.base_hash_watched(base_hash_cache().as_deref(), watch)?,
            model: Model::open(checkpoint)?,
            checkpoint,
        })
    }

    pub fn unet(&self) -> &UNetConfig {
        &self.model.unet.config
    }

    pub fn text(&self) -> &ClipTextConfig {
        &self.model.text().part.config
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.text().tokenizer
    }
}

/// Weights that a stage solved for, f32, by their names in the network. They stay in their file
/// until they are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct FusedWeights {
    files: Vec<Arc<TensorFile>>,
}

impl FusedWeights {
    pub fn add(&mut self, path: &Path) -> Result<()> {
        self.files.push(Arc::new(TensorFile::open(path)?));
        Ok(())
    }

    /// In place of the weights of these names that were added before.
    pub fn put_before(&mut self, path: &Path) -> Result<()> {
        self.files.insert(0, Arc::new(TensorFile::open(path)?));
        Ok(())
    }

    pub fn find(&self, name: &str) -> Option<TensorView<'_>> {
        self.files.iter().find_map(|file| file.tensor(name))
    }

    /// A network's weights with these in place of its own.
    pub fn over(&self, component: &Component) -> Overlay {
        Overlay::new(Arc::new(ComponentSource(component.clone()))).with_replaced(&self.files)
    }

    /// A network with these weights, and with `set`'s updates beside them.
    pub fn load<C: Clone>(
        &self,
        runner: &Runner,
        part: &Part<C>,
        set: Option<&AppliedSet>,
    ) -> (LoadedNetwork<C>, Updates) {
        let overlay = self.over(&part.component);
        let config = part.config.clone();
        let network = LoadedNetwork::from_overlay(
            runner.gpu,
            &part.component,
            overlay,
            config,
            runner.precision,
        );
        let updates = Updates::everywhere(set);
        updates.install(&network);
        (network, updates)
    }
}

/// The device and the model as earlier stages left it.
pub(super) struct Runner<'a> {
    pub gpu: &'a Device,
    pub base: &'a Base<'a>,
    pub precision: Precision,
    pub text: FusedWeights,
    pub unet: FusedWeights,
}

/// A weight of the base model: its shape as stored, and its elements.
pub(super) fn base_weight(component: &Component, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
    use crate::graph::ParameterSource;
    let shape = component.tensor(name)?.shape().to_vec();
    let mut values = vec![0.0; shape.iter().product()];
    ComponentSource(component.clone())
        .read(name, 0..values.len(), &mut values)
        .map_err(crate::graph::Error::from)?;
    component.release(name);
    Ok((shape, values))
}
