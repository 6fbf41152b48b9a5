//! The configurations of CLIP's two towers.
use super::keys::Keys;
use super::{Activation, ConfigError};
use serde_json::Value;
use std::path::Path;

/// CLIP's text encoder (`CLIPTextModel`, with or without projection).
#[derive(Debug, Clone, PartialEq)]
pub struct ClipTextConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Longest sequence: 77.
    pub max_position_embeddings: usize,
    /// Width of the joint space of text and pictures.
    pub projection_dim: usize,
    /// Nonlinearity of the feed-forward part.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
    /// Number of the token that begins a text. Files written by older programs give wrong values
    /// here; trust the tokenizer first.
    pub bos_token_id: Option<usize>,
    /// Number of the token that ends a text; as above.
    pub eos_token_id: Option<usize>,
    /// Number of the token that fills up a text; as above.
    pub pad_token_id: Option<usize>,
}

/// CLIP's vision tower (`CLIPVisionModel`, with or without projection).
#[derive(Debug, Clone, PartialEq)]
pub struct ClipVisionConfig {
    /// Width.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Side of the (square) picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of the joint space of text and pictures.
    pub projection_dim: usize,
    /// Nonlinearity of the feed-forward part.
    pub hidden_act: Activation,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
}

const GELUS: [Activation; 2] = [Activation::QuickGelu, Activation::Gelu];

impl ClipTextConfig {
    /// Reads a `text_encoder/config.json` (or a whole CLIP's, of which it takes `text_config`);
    /// `file` is used in errors.
    pub fn from_json(config: &Value, file: &Path) -> Result<Self, ConfigError> {
        let outer = Keys::new(config, file)?;
        check_model_type(&outer, "clip_text_model")?;
        let keys = outer.nested("text_config", "text_config.");
        let hidden_size = keys.count("hidden_size", 512)?;
        Ok(Self {
            vocab_size: keys.count("vocab_size", 49408)?,
            hidden_size,
            intermediate_size: keys.count("intermediate_size", 2048)?,
            num_hidden_layers: keys.count("num_hidden_layers", 12)?,
            num_attention_heads: heads(&keys, hidden_size, 8)?,
            max_position_embeddings: keys.count("max_position_embeddings", 77)?,
            projection_dim: keys.count("projection_dim", 512)?,
            hidden_act: keys.activation("hidden_act", Activation::QuickGelu, &GELUS)?,
            layer_norm_eps: keys.positive_number("layer_norm_eps", 1e-5)?,
            bos_token_id: keys.token("bos_token_id"),
            eos_token_id: keys.token("eos_token_id"),
            pad_token_id: keys.token("pad_token_id"),
        })
    }
}

impl ClipVisionConfig {
    /// Reads an `image_encoder/config.json` (or a whole CLIP's, of which it takes `vision_config`);
    /// `file` is used in errors.
    pub fn from_json(config: &Value, file: &Path) -> Result<Self, ConfigError> {
        let outer = Keys::new(config, file)?;
        check_model_type(&outer, "clip_vision_model")?;
        let keys = outer.nested("vision_config", "vision_config.");
        let hidden_size = keys.count("hidden_size", 768)?;
        let image_size = keys.count("image_size", 224)?;
        let patch_size = keys.count("patch_size", 32)?;
        if image_size % patch_size != 0 {
            return Err(keys.invalid(
                "patch_size",
                format!("a number that divides `image_size`, {image_size}"),
            ));
        }
        Ok(Self {
            hidden_size,
            intermediate_size: keys.count("intermediate_size", 3072)?,
            num_hidden_layers: keys.count("num_hidden_layers", 12)?,
            num_attention_heads: heads(&keys, hidden_size, 12)?,
            num_channels: keys.count("num_channels", 3)?,
            image_size,
            patch_size,
            projection_dim: keys.count("projection_dim", 512)?,
            hidden_act: keys.activation("hidden_act", Activation::QuickGelu, &GELUS)?,
            layer_norm_eps: keys.positive_number("layer_norm_eps", 1e-5)?,
        })
    }
}

fn check_model_type(keys: &Keys, own: &str) -> Result<(), ConfigError> {
    match keys.text("model_type")? {
        None | Some("clip") => Ok(()),
        Some(t) if t == own => Ok(()),
        // Towers with a projection have carried both this name and the plain one.
        Some("clip_text_model_with_projection" | "clip_vision_model_with_projection") => Ok(()),
        Some(_) => Err(keys.unsupported("model_type", format!("{own}, clip"))),
    }
}

fn heads(keys: &Keys, width: usize, default: usize) -> Result<usize, ConfigError> {
    let heads = keys.count("num_attention_heads", default)?;
    if width.is_multiple_of(heads) {
        Ok(heads)
    } else {
        Err(keys.invalid(
            "num_attention_heads",
            format!("a number that divides `hidden_size`, {width}"),
        ))
    }
}
