//! `AutoencoderKL`'s configuration.
use super::keys::Keys;
use super::{Activation, ConfigError};
use serde_json::{Value, json};
use std::path::Path;

/// The autoencoder between pictures and latents.
#[derive(Debug, Clone, PartialEq)]
pub struct VaeConfig {
    /// Channels of a picture that goes in.
    pub in_channels: usize,
    /// Channels of a picture that comes out.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of each level, highest resolution first; the decoder runs them backwards.
    pub block_out_channels: Vec<usize>,
    /// Resnet blocks per level of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Groups of every group norm.
    pub norm_num_groups: usize,
    /// Nonlinearity.
    pub activation: Activation,
    /// Picture size it was trained at.
    pub sample_size: usize,
    /// Latents are multiplied by this after encoding, and divided by it before decoding.
    pub scaling_factor: f32,
    /// Subtracted from latents before scaling, where there is one.
    pub shift_factor: Option<f32>,
    /// A 1x1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// A 1x1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// There is self-attention in the middle blocks.
    pub mid_block_add_attention: bool,
    /// It overflows in f16 arithmetic.
    pub force_upcast: bool,
}

impl VaeConfig {
    /// Reads a `vae/config.json`; `file` is used in errors.
    pub fn from_json(config: &Value, file: &Path) -> Result<Self, ConfigError> {
        let keys = Keys::new(config, file)?;
        keys.must_be_null("latents_mean")?;
        keys.must_be_null("latents_std")?;
        keys.must_be("_class_name", &json!("AutoencoderKL"))?;
        let block_out_channels = keys.counts("block_out_channels", &[64])?;
        for (key, only) in
            [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
        {
            let Some(types) = keys.texts(key)? else {
                continue;
            };
            if types.iter().any(|&t| t != only) {
                return Err(keys.unsupported(key, only));
            }
            if types.len() != block_out_channels.len() {
                let n = block_out_channels.len();
                return Err(
                    keys.invalid(key, format!("{n} block types, as many as `block_out_channels`"))
                );
            }
        }
        let norm_num_groups = keys.count("norm_num_groups", 32)?;
        if let Some(c) = block_out_channels.iter().find(|&c| c % norm_num_groups != 0) {
            return Err(keys.invalid(
                "norm_num_groups",
                format!("a number of groups that divides {c} channels"),
            ));
        }
        Ok(Self {
            in_channels: keys.count("in_channels", 3)?,
            out_channels: keys.count("out_channels", 3)?,
            latent_channels: keys.count("latent_channels", 4)?,
            layers_per_block: keys.count("layers_per_block", 1)?,
            norm_num_groups,
            activation: keys.activation("act_fn", Activation::Silu, &[Activation::Silu])?,
            sample_size: keys.count("sample_size", 32)?,
            scaling_factor: keys.positive_number("scaling_factor", 0.18215)?,
            shift_factor: keys.optional_number("shift_factor")?,
            use_quant_conv: keys.flag("use_quant_conv", true)?,
            use_post_quant_conv: keys.flag("use_post_quant_conv", true)?,
            mid_block_add_attention: keys.flag("mid_block_add_attention", true)?,
            force_upcast: keys.flag("force_upcast", true)?,
            block_out_channels,
        })
    }

    /// Picture pixels per latent pixel, along one side.
    pub fn downscale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}
