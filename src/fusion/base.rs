//! The model that concepts are fused into, and what earlier stages changed in its weights.

use std::path::Path;
use std::sync::Arc;

use crate::backend::{Device, Precision};
use crate::checkpoint::{
    Checkpoint, Component, ModelHash, Network, TensorFile, TensorView, base_hash_cache,
};
use crate::concept::AppliedSet;
use crate::models::config::UNetConfig;
use crate::models::unet::addition_features;
use crate::sd::network::LoadedNetwork;
use crate::sd::source::ComponentSource;
use crate::sd::updates::Updates;
use crate::sd::{Model, Overlay, Part, TextEncoder};
use crate::text::Tokenizer;

use super::{Error, Result};
use crate::watch::Watch;

/// A checkpoint, read as far as fusion needs it.
pub(super) struct Base<'a> {
    pub checkpoint: &'a Checkpoint,
    pub hash: ModelHash,
    pub model: Model,
}

impl<'a> Base<'a> {
    pub fn open(checkpoint: &'a Checkpoint, watch: &mut Watch) -> Result<Base<'a>> {
        let model = Model::open(checkpoint)?;
        let unet = &model.unet.config;
        if unet.in_channels != unet.out_channels {
            return Err(model
                .unet
                .unsupported(format!(
                    "a UNet from {} to {} channels (an inpainting or editing model): concepts are \
                        fused into models that read latents alone",
                    unet.in_channels, unet.out_channels
                ))
                .into());
        }
        Ok(Base {
            hash: checkpoint.base_hash_watched(base_hash_cache().as_deref(), watch)?,
            model,
            checkpoint,
        })
    }

    pub fn unet(&self) -> &UNetConfig {
        &self.model.unet.config
    }

    /// The text encoders, in the order in which the UNet reads them.
    pub fn encoders(&self) -> &[TextEncoder] {
        &self.model.text_encoders
    }

    /// One of them; the first where the model has no such.
    pub fn encoder(&self, network: Network) -> &TextEncoder {
        let mut all = self.encoders().iter();
        all.find(|encoder| encoder.network == network).unwrap_or(self.model.text())
    }

    /// The first text encoder's.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.model.text().tokenizer
    }

    /// A network's files.
    pub fn component(&self, network: Network) -> &Component {
        match network {
            Network::UNet => &self.model.unet.component,
            text => &self.encoder(text).part.component,
        }
    }

    /// What a UNet of Stable Diffusion XL is told besides a prompt, of pictures with latents of
    /// `size` that are not cut; others are told nothing.
    pub fn addition(&self, pooled: &[f32], [height, width]: [usize; 2]) -> Option<Vec<f32>> {
        let addition = self.unet().addition.as_ref()?;
        let factor = self.model.vae.config.downscale();
        let [height, width] = [height, width].map(|side| (side * factor) as f32);
        let sizes = [height, width, 0.0, 0.0, height, width];
        Some(addition_features(self.unet(), addition, pooled, &sizes))
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
        let updates = Updates::everywhere(set);
        (self.load_with(runner, part, &updates), updates)
    }

    /// The same with any updates.
    pub fn load_with<C: Clone>(
        &self,
        runner: &Runner,
        part: &Part<C>,
        updates: &Updates,
    ) -> LoadedNetwork<C> {
        let overlay = self.over(&part.component);
        let config = part.config.clone();
        let mut network = LoadedNetwork::from_overlay(
            runner.gpu,
            &part.component,
            overlay,
            config,
            runner.precision,
        );
        network.budget = runner.room();
        updates.install(&network);
        network
    }
}

/// The device and the model as earlier stages left it.
pub(super) struct Runner<'a> {
    pub gpu: &'a Device,
    pub base: &'a Base<'a>,
    pub precision: Precision,
    /// Bytes of the device to stay within.
    pub memory: Option<u64>,
    pub text: FusedWeights,
    /// Of a second text encoder.
    pub text_2: FusedWeights,
    pub unet: FusedWeights,
}

/// Devices round what they are asked for, and recordings have some kilobytes of their own.
const ROUNDING: u64 = 4 << 20;

impl Runner<'_> {
    /// What of the budget programs may have.
    pub fn room(&self) -> Option<u64> {
        self.memory.map(|memory| memory.saturating_sub(ROUNDING))
    }

    /// The error of a budget that is too small, with what would do.
    pub fn too_little(&self, what: &str, least: u64) -> Error {
        Error::option(
            "memory",
            format!(
                "{} MiB: expected {} MiB at least, for {what}; smaller pictures, or weights of \
                    fewer bits, take less",
                self.memory.unwrap_or(0) >> 20,
                (least + ROUNDING).div_ceil(1 << 20)
            ),
        )
    }

    /// What earlier stages changed in a network.
    pub fn fused(&self, network: Network) -> &FusedWeights {
        match network {
            Network::TextEncoder => &self.text,
            Network::TextEncoder2 => &self.text_2,
            Network::UNet => &self.unet,
        }
    }

    /// The same, to be added to.
    pub fn fused_mut(&mut self, network: Network) -> &mut FusedWeights {
        match network {
            Network::TextEncoder => &mut self.text,
            Network::TextEncoder2 => &mut self.text_2,
            Network::UNet => &mut self.unet,
        }
    }
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
