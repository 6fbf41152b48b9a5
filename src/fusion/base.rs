//! The model that concepts are fused into: its configurations, and its weights with what earlier
//! stages changed.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, ModelHash, TensorFile, TokenizerFiles, base_hash_cache};
use crate::concept::{Update, UpdateSet};
use crate::graph::{ParameterError, ParameterInfo, ParameterSource};
use crate::models::config::{ClipTextConfig, UNetConfig, VaeConfig};
use crate::models::unet::{self, CrossAttention};
use crate::scheduler::config::SchedulerConfig;
use crate::sd::source::ComponentSource;
use crate::text::Tokenizer;

use super::Result;

/// A checkpoint, read as far as fusion needs it.
pub(super) struct Base<'a> {
    pub checkpoint: &'a Checkpoint,
    pub hash: ModelHash,
    pub unet: UNetConfig,
    pub vae: VaeConfig,
    pub text: ClipTextConfig,
    pub scheduler: SchedulerConfig,
    pub tokenizer: Tokenizer,
    /// In the order of their numbers: down, middle, up.
    pub attentions: Vec<CrossAttention>,
}

impl<'a> Base<'a> {
    pub fn open(checkpoint: &'a Checkpoint) -> Result<Base<'a>> {
        let (unet, vae, text) = (&checkpoint.unet, &checkpoint.vae, &checkpoint.text_encoder);
        let unet = UNetConfig::from_json(&unet.config, &unet.config_path)?;
        Ok(Base {
            hash: checkpoint.base_hash_cached(base_hash_cache().as_deref()),
            attentions: unet::cross_attentions(&unet),
            unet,
            vae: VaeConfig::from_json(&vae.config, &vae.config_path)?,
            text: ClipTextConfig::from_json(&text.config, &text.config_path)?,
            scheduler: SchedulerConfig::parse(&checkpoint.scheduler.to_string())?.for_pipeline().0,
            tokenizer: tokenizer(&checkpoint.tokenizer)?,
            checkpoint,
        })
    }
}

fn tokenizer(files: &TokenizerFiles) -> Result<Tokenizer> {
    Ok(match files {
        TokenizerFiles::Standard { pad } => Tokenizer::clip_standard()?.with_pad(pad)?,
        TokenizerFiles::Folder(folder) => Tokenizer::from_files(folder.path(), &|name| {
            let bytes = folder.read(name).map_err(io::Error::other)?;
            bytes
                .map(|bytes| String::from_utf8(bytes.into_owned()).map_err(io::Error::other))
                .transpose()
        })?,
    })
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

    pub fn find(&self, name: &str) -> Option<crate::checkpoint::TensorView<'_>> {
        self.files.iter().find_map(|file| file.tensor(name))
    }
}

/// A network's weights, with fused ones in place of its own, and low-rank updates beside them under
/// `updates.<layer>.lora_down.weight` and `updates.<layer>.lora_up.weight`.
pub(super) struct Source {
    base: ComponentSource,
    fused: FusedWeights,
    /// By full name: shape and elements.
    updates: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// What the parameters of updates begin with.
pub(super) const UPDATES: &str = "updates";

impl Source {
    pub fn new(base: ComponentSource, fused: &FusedWeights, updates: &UpdateSet) -> Source {
        let mut named = BTreeMap::new();
        for (layer, Update::Lora(update)) in &updates.layers {
            let full = |part: &str| format!("{UPDATES}.{layer}.lora_{part}.weight");
            for (part, array) in [("down", &update.down), ("up", &update.up)] {
                named.insert(full(part), (array.shape.to_vec(), array.values().to_vec()));
            }
        }
        Source { base, fused: fused.clone(), updates: named }
    }
}

impl ParameterSource for Source {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        match self.updates.get(name) {
            Some((shape, _)) => {
                Some(ParameterInfo { shape: shape.clone(), stored: crate::graph::StoredAs::F32 })
            }
            // In the file's own precision, as the fused model will have it.
            None => self.base.info(name),
        }
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let failed =
            |message: &str| ParameterError::Read { name: name.into(), message: message.into() };
        if let Some((_, values)) = self.updates.get(name) {
            into.copy_from_slice(values.get(range).ok_or_else(|| failed("read beyond its end"))?);
            return Ok(());
        }
        match self.fused.find(name) {
            Some(view) if range.end <= view.len() && range.len() == into.len() => {
                view.write_f32(range, into);
                Ok(())
            }
            Some(_) => Err(failed("read beyond its end")),
            None => self.base.read(name, range, into),
        }
    }

    fn done_with(&self, name: &str) {
        self.base.done_with(name);
    }
}
