//! A checkpoint, opened: what its networks are, how they were trained, what they read.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::{Checkpoint, Component, Network, TokenizerFiles};
use crate::concept::binding::{FusedWord, fused_words};
use crate::models::config::{ClipTextConfig, ClipVisionConfig, UNetConfig, VaeConfig};
use crate::models::unet::{self, CrossAttention};
use crate::scheduler::config::SchedulerConfig;
use crate::text::{KnownWords, Tokenizer};

use super::error::{Error, Result};

/// A text-to-image model: everything that its files say. Weights stay in the files.
#[derive(Clone, Debug)]
pub struct Model {
    /// The file or folder that it was opened from.
    pub path: PathBuf,
    /// The denoising network.
    pub unet: Part<UNetConfig>,
    /// The autoencoder.
    pub vae: Part<VaeConfig>,
    /// In the order in which the UNet reads them. At least one.
    pub text_encoders: Vec<TextEncoder>,
    /// CLIP's vision tower, where the model brings one.
    pub vision: Option<Vision>,
    /// What its files say of the noise.
    pub scheduler: SchedulerConfig,
    /// The UNet's, in the order in which they read prompts: down, middle, up.
    pub attentions: Vec<CrossAttention>,
    /// The guidance scale that it was made for, if it says so.
    pub guidance: Option<f32>,
    /// Words of a fused model.
    pub fused: Vec<FusedWord>,
    /// The words of its captions, where a small model lists them.
    pub known: Option<KnownWords>,
    /// What was assumed of its files, in sentences for the user.
    pub notes: Vec<String>,
}

/// A network's files and configuration.
#[derive(Clone, Debug)]
pub struct Part<C> {
    pub component: Component,
    pub config: C,
}

/// A vision tower.
#[derive(Clone, Debug)]
pub struct Vision {
    pub part: Part<ClipVisionConfig>,
    /// `preprocessor_config.json`: how pictures are normalised for it.
    pub preprocessor: Option<Value>,
}

/// A text encoder with what intervals its tokens.
#[derive(Clone, Debug)]
pub struct TextEncoder {
    pub network: Network,
    pub part: Part<ClipTextConfig>,
    pub tokenizer: Tokenizer,
}

impl Model {
    /// Reads configurations and tokenizers.
    ///
    /// # Errors
    /// Files that contradict each other or ask for what this program does not compute.
    pub fn open(checkpoint: &Checkpoint) -> Result<Model> {
        let (unet, vae, text) = (&checkpoint.unet, &checkpoint.vae, &checkpoint.text_encoder);
        let (scheduler, notes) =
            SchedulerConfig::parse(&checkpoint.scheduler.to_string())?.for_pipeline();
        let vision = match &checkpoint.vision {
            None => None,
            Some(tower) => Some(Vision {
                part: Part {
                    component: tower.clone(),
                    config: ClipVisionConfig::from_json(&tower.config, &tower.config_path)?,
                },
                preprocessor: checkpoint.vision_preprocessor.clone(),
            }),
        };
        let unet_config = UNetConfig::from_json(&unet.config, &unet.config_path)?;
        let model = Model {
            path: checkpoint.path.clone(),
            attentions: unet::cross_attentions(&unet_config),
            unet: Part { component: unet.clone(), config: unet_config },
            vae: Part {
                component: vae.clone(),
                config: VaeConfig::from_json(&vae.config, &vae.config_path)?,
            },
            text_encoders: vec![TextEncoder {
                network: Network::TextEncoder,
                part: Part {
                    component: text.clone(),
                    config: ClipTextConfig::from_json(&text.config, &text.config_path)?,
                },
                tokenizer: tokenizer(&checkpoint.tokenizer)?,
            }],
            vision,
            scheduler,
            guidance: checkpoint.guidance(),
            fused: fused_words(checkpoint)?,
            known: checkpoint.words.as_deref().map(KnownWords::parse),
            notes: checkpoint.notes.iter().cloned().chain(notes).collect(),
        };
        Ok(model)
    }

    /// The first text encoder.
    pub fn text(&self) -> &TextEncoder {
        &self.text_encoders[0]
    }

    /// Height and width of the latents that the UNet was trained at.
    pub fn latent_size(&self) -> [usize; 2] {
        let side = (self.vae.config.sample_size / self.vae.config.downscale()).max(1);
        self.unet.config.sample_size.unwrap_or([side, side])
    }

    /// The networks fit each other.
    ///
    /// # Errors
    /// Networks of another kind of model: for inpainting or editing, told classes, of other widths.
    pub fn check(&self) -> Result<()> {
        let (unet, vae, text) = (&self.unet.config, &self.vae.config, &self.text().part.config);
        let channels = vae.latent_channels;
        if unet.in_channels != channels || unet.out_channels != channels {
            let (into, out) = (unet.in_channels, unet.out_channels);
            return Err(self.unet.unsupported(format!(
                "a UNet from {into} to {out} channels on latents of {channels} (an inpainting or \
                    editing model)"
            )));
        }
        if unet.cross_attention_dim != text.hidden_size {
            let (dim, width) = (unet.cross_attention_dim, text.hidden_size);
            return Err(self.unet.unsupported(format!(
                "`cross_attention_dim` {dim} with a text encoder of width {width}"
            )));
        }
        if unet.num_class_embeds.is_some() {
            return Err(self.unet.unsupported("a model that is told classes (`num_class_embeds`)"));
        }
        if vae.in_channels != 3 || vae.out_channels != 3 {
            let (into, out) = (vae.in_channels, vae.out_channels);
            return Err(self.vae.unsupported(format!(
                "an autoencoder from {into} to {out} channels; pictures have 3"
            )));
        }
        Ok(())
    }
}

impl<C> Part<C> {
    pub(crate) fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::Unsupported { path: self.component.path().to_path_buf(), what: what.into() }
    }
}

pub(crate) fn tokenizer(files: &TokenizerFiles) -> Result<Tokenizer> {
    Ok(match files {
        TokenizerFiles::Standard { pad } => Tokenizer::clip_standard()?.with_pad(pad)?,
        TokenizerFiles::Texts(texts) => {
            Tokenizer::from_files(Path::new("tokenizer"), &|name| Ok(texts.get(name).cloned()))?
        }
        TokenizerFiles::Folder(folder) => Tokenizer::from_files(folder.path(), &|name| {
            let bytes = folder.read(name).map_err(io::Error::other)?;
            bytes
                .map(|bytes| String::from_utf8(bytes.into_owned()).map_err(io::Error::other))
                .transpose()
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Folder;

    #[test]
    fn a_compiled_in_tokenizer_is_the_one_on_disk() {
        static FILES: include_dir::Dir =
            include_dir::include_dir!("$CARGO_MANIFEST_DIR/models/tiny/tokenizer");
        let compiled_in =
            tokenizer(&TokenizerFiles::Folder(Folder::embedded("tiny", &FILES))).unwrap();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny/tokenizer");
        let on_disk = tokenizer(&TokenizerFiles::Folder(Folder::disk(&path))).unwrap();
        let ids = |tokenizer: &Tokenizer| -> Vec<u32> {
            let tokens = tokenizer.tokenize("a red cat in the snow").unwrap();
            tokens.iter().map(|token| token.id).collect()
        };
        assert_eq!(ids(&compiled_in), ids(&on_disk));
        assert!(ids(&on_disk).len() >= 6);
    }
}
