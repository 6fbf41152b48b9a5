//! A whole text-to-image model, whatever it is stored as.
use super::{Component, Control, Folder, Network};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use crate::watch::{Cancelled, Progress, Watch, heed};

/// How a model is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder in diffusers' layout.
    DiffusersFolder,
    /// One file with CompVis's (LDM's) names.
    SingleFile,
}

/// Where the tokenizer's files are.
#[derive(Debug, Clone)]
pub enum TokenizerFiles {
    /// A folder with `vocab.json` and `merges.txt`, or `tokenizer.json`.
    Folder(Folder),
    /// Its files by name, as a single file of this program's holds them.
    Texts(BTreeMap<String, String>),
    /// The model brings none, as single files do: it means CLIP's own.
    Standard {
        /// The token that fills up short texts: the end token for Stable Diffusion 1.x, `!` for
        /// 2.x.
        pad: &'static str,
    },
}

impl TokenizerFiles {
    /// For a model without tokenizer: 2.x is known by OpenCLIP's text encoder, and that by its
    /// nonlinearity.
    pub(super) fn standard(text_encoder: &Component) -> Self {
        let open_clip = text_encoder.config["hidden_act"] == "gelu";
        Self::Standard { pad: if open_clip { "!" } else { "<|endoftext|>" } }
    }
}

/// The second text encoder of Stable Diffusion XL, with its tokenizer.
#[derive(Debug, Clone)]
pub struct SecondEncoder {
    /// OpenCLIP's text encoder with its projection.
    pub component: Component,
    /// Its tokenizer, which pads otherwise than the first.
    pub tokenizer: TokenizerFiles,
    /// An empty negative prompt is read as zeros.
    pub zeros_for_empty: bool,
}

/// A text-to-image model: its networks under canonical names, and what goes with them.
#[derive(Debug)]
pub struct Checkpoint {
    /// The file or folder, or the name of a compiled-in model.
    pub path: PathBuf,
    /// How it is stored.
    pub kind: Kind,
    /// The denoising network.
    pub unet: Component,
    /// The autoencoder.
    pub vae: Component,
    /// CLIP's text encoder.
    pub text_encoder: Component,
    /// Stable Diffusion XL has another one.
    pub second: Option<SecondEncoder>,
    /// CLIP's vision tower, if the model brings it (`image_encoder/` or `clip_vision/`).
    pub vision: Option<Component>,
    /// `preprocessor_config.json` of the vision tower: how pictures are normalised for it.
    pub vision_preprocessor: Option<Value>,
    /// Networks that steer it, by the names of their folders inside of the model (`t2i_adapter`,
    /// `controlnet`).
    pub controls: BTreeMap<String, Control>,
    /// Its tokenizer.
    pub tokenizer: TokenizerFiles,
    /// `scheduler_config.json`, or what was inferred.
    pub scheduler: Value,
    /// `model_index.json`.
    pub model_index: Option<Value>,
    /// `generation_config.json`: how the model is best used.
    pub generation: Option<Value>,
    /// `new_concept_cfg.json` of a fused model: the tokens of its concepts' words.
    pub concepts: Option<Value>,
    /// `known_words.txt`: the words of a small model's captions; see [`crate::text::KnownWords`].
    pub words: Option<String>,
    /// What could not be read from the file and was assumed, in sentences for the user.
    pub notes: Vec<String>,
}

impl Checkpoint {
    /// The guidance that the model was made for: `guidance_scale` of its `generation_config.json`.
    pub fn guidance(&self) -> Option<f32> {
        self.generation.as_ref()?.get("guidance_scale")?.as_f64().map(|scale| scale as f32)
    }

    /// Its text encoders, in the order in which the UNet reads them.
    pub fn text_encoders(&self) -> impl Iterator<Item = (Network, &Component)> {
        let second = self.second.iter().map(|second| (Network::TextEncoder2, &second.component));
        std::iter::once((Network::TextEncoder, &self.text_encoder)).chain(second)
    }

    /// A network that can be changed by a concept, where the model has it.
    pub fn network(&self, network: Network) -> Option<&Component> {
        match network {
            Network::TextEncoder => Some(&self.text_encoder),
            Network::TextEncoder2 => self.second.as_ref().map(|second| &second.component),
            Network::UNet => Some(&self.unet),
        }
    }

    /// SHA-256 over the networks' own hashes: identifies the model in every file layout of the same
    /// precision.
    pub fn hash(&self) -> [u8; 32] {
        let Ok(hash) = self.hash_with(&mut |_, _| Ok::<_, Infallible>(()));
        hash
    }

    /// As [`hash`](Self::hash), which reads all weights; `watch` is told of the stage `hash`, by
    /// tensors.
    ///
    /// # Errors
    /// The watch asked it to end.
    pub fn hash_watched(&self, watch: &mut Watch) -> Result<[u8; 32], Cancelled> {
        self.hash_with(&mut |done, of| heed(watch(Progress::new("hash", done, of))))
    }

    fn hash_with<E>(
        &self,
        before: &mut dyn FnMut(usize, usize) -> Result<(), E>,
    ) -> Result<[u8; 32], E> {
        let encoders = self.text_encoders().map(|(_, component)| component);
        let components: Vec<&Component> = encoders.chain([&self.unet, &self.vae]).collect();
        let of = components.iter().map(|component| component.len()).sum();
        let (mut sha, mut done) = (Sha256::new(), 0);
        for component in components {
            sha.update(component.hash_with(&mut || {
                before(done, of)?;
                done += 1;
                Ok(())
            })?);
        }
        Ok(sha.finalize().into())
    }
}
