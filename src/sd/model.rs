//! A checkpoint, opened: what its networks are, how they were trained, what they read.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::checkpoint::{Checkpoint, Component, Network, SecondEncoder, TokenizerFiles};
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
    /// An empty negative prompt is read as zeros.
    pub zeros_for_empty: bool,
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
    /// What of it the UNet reads.
    pub reading: Reading,
}

/// What of a text encoder a UNet reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What its last layer but one gives, instead of all of it.
    pub before_last: bool,
    /// The projection of the text's end besides: a summary of the prompt.
    pub pooled: bool,
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
        let xl = checkpoint.second.is_some();
        let encoder = |network, component: &Component, files: &TokenizerFiles| -> Result<_> {
            let pooled = network == Network::TextEncoder2;
            Ok(TextEncoder {
                network,
                part: Part {
                    component: component.clone(),
                    config: ClipTextConfig::from_json(&component.config, &component.config_path)?,
                },
                tokenizer: tokenizer(files)?,
                reading: Reading { before_last: xl, pooled },
            })
        };
        let mut text_encoders = vec![encoder(Network::TextEncoder, text, &checkpoint.tokenizer)?];
        if let Some(SecondEncoder { component, tokenizer, .. }) = &checkpoint.second {
            text_encoders.push(encoder(Network::TextEncoder2, component, tokenizer)?);
        }
        let zeros_for_empty =
            checkpoint.second.as_ref().is_some_and(|second| second.zeros_for_empty);
        let model = Model {
            path: checkpoint.path.clone(),
            attentions: unet::cross_attentions(&unet_config),
            unet: Part { component: unet.clone(), config: unet_config },
            vae: Part {
                component: vae.clone(),
                config: VaeConfig::from_json(&vae.config, &vae.config_path)?,
            },
            text_encoders,
            vision,
            scheduler,
            guidance: checkpoint.guidance(),
            fused: fused_words(checkpoint)?,
            known: checkpoint.words.as_deref().map(KnownWords::parse),
            zeros_for_empty,
            notes: checkpoint.notes.iter().cloned().chain(notes).collect(),
        };
        Ok(model)
    }

    /// The first text encoder.
    pub fn text(&self) -> &TextEncoder {
        &self.text_encoders[0]
    }

    /// It has two text encoders, and is told sizes and a summary of the prompt.
    pub fn is_xl(&self) -> bool {
        self.unet.config.addition.is_some()
    }

    /// Width of what the text encoders give together.
    pub fn text_width(&self) -> usize {
        self.text_encoders.iter().map(|encoder| encoder.part.config.hidden_size).sum()
    }

    /// Height and width of the latents that the UNet was trained at.
    pub fn latent_size(&self) -> [usize; 2] {
        let side = (self.vae.config.sample_size / self.vae.config.downscale()).max(1);
        self.unet.config.sample_size.unwrap_or([side, side])
    }

    /// The networks fit each other.
    ///
    /// # Errors
    /// Networks of another kind of model: for editing or depth, told classes, of other widths.
    pub fn check(&self) -> Result<()> {
        let (unet, vae) = (&self.unet.config, &self.vae.config);
        let channels = vae.latent_channels;
        let takes_these = unet.in_channels == channels || unet.inpaints();
        if !takes_these || unet.out_channels != channels {
            let (into, out) = (unet.in_channels, unet.out_channels);
            return Err(self.unet.unsupported(format!(
                "a UNet from {into} to {out} channels on latents of {channels} (an editing or depth \
                    model)"
            )));
        }
        if unet.cross_attention_dim != self.text_width() {
            let (dim, width) = (unet.cross_attention_dim, self.text_width());
            let of = match self.text_encoders.len() {
                1 => "a text encoder",
                _ => "text encoders",
            };
            return Err(self
                .unet
                .unsupported(format!("`cross_attention_dim` {dim} with {of} of width {width}")));
        }
        self.check_addition()?;
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

impl Model {
    /// What the UNet is told besides the prompt is what the text encoders give.
    fn check_addition(&self) -> Result<()> {
        let pooled = self.text_encoders.iter().find(|encoder| encoder.reading.pooled);
        let (addition, encoder) = match (&self.unet.config.addition, pooled) {
            (None, None) => return Ok(()),
            (Some(addition), Some(encoder)) => (addition, encoder),
            (Some(_), None) => {
                let what = "a UNet that is told a summary of the prompt (`text_time`) with one \
                    text encoder";
                return Err(self.unet.unsupported(what));
            }
            (None, Some(_)) => {
                let what = "two text encoders with a UNet that is told no summary of the prompt";
                return Err(self.unet.unsupported(what));
            }
        };
        let width = encoder.part.config.projection_dim;
        if addition.text != width {
            return Err(self.unet.unsupported(format!(
                "a UNet told a summary of width {} with a second text encoder that makes {width}",
                addition.text
            )));
        }
        let mut lengths = self.text_encoders.iter().map(|encoder| encoder.tokenizer.max_length());
        let first = lengths.next();
        match lengths.find(|length| Some(*length) != first) {
            None => Ok(()),
            Some(other) => Err(encoder.part.unsupported(format!(
                "a tokenizer of {other} tokens beside one of {}",
                first.unwrap_or(0)
            ))),
        }
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
