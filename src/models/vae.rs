//! The autoencoder between pictures and latents, diffusers' `AutoencoderKL`.

use super::config::VaeConfig;
use crate::graph::{Result, Tensor};
use crate::nn::{Layers, Resnet};

/// Of every normalisation in the autoencoder.
pub const EPSILON: f32 = 1e-6;

/// The distribution of latents that a picture is encoded to, each
/// `[batch, height, width, latent_channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// The distribution's mean.
    pub mean: Tensor,
    /// As the model gives it: diffusers limits it to -30..=20 before use.
    pub log_variance: Tensor,
}

/// Builds the encoder: `pixels` in -1..=1, `[batch, height, width, in_channels]`, both sizes
/// multiples of [`VaeConfig::downscale`]. Latents for a UNet are `scaling_factor` times a sample of
/// the result.
pub fn encode(layers: &mut Layers, config: &VaeConfig, pixels: Tensor) -> Result<Moments> {
    let factor = config.downscale();
    let [_, height, length, _] = layers.image(pixels, "vae")?;
    if height % factor != 0 || length % factor != 0 || height * length == 0 {
        let message = format!(
            "a picture of {height}x{length} does not divide into latents of {factor}x{factor} \
                pixels"
        );
        return Err(layers.graph.shape_error("vae", message));
    }
    let mut x = (pixels, None);
    for piece in encoder_pieces(config) {
        x = piece.build(layers, config, x)?;
    }
    encode_end(layers, config, x.0)
}

/// The `scaling_factor` of Stable Diffusion 1 and 2, whose activations f16 holds: diffusers decodes
/// in it, whatever the file says of `force_upcast`, which it asks XL's alone.
const HELD_BY_F16: f32 = 0.18215;

/// Says so where activations may exceed what f16 holds, as those of Stable Diffusion XL's do: files
/// that are made for f16 deny it.
fn keep_range(layers: &mut Layers, config: &VaeConfig) {
    if config.force_upcast && config.scaling_factor != HELD_BY_F16 {
        layers.graph.keep_range();
    }
}

/// Builds the encoder's second half on the result of the last of [`encoder_pieces`]. This part sees
/// the picture as a whole, for attention is in it.
pub fn encode_end(layers: &mut Layers, config: &VaeConfig, features: Tensor) -> Result<Moments> {
    keep_range(layers, config);
    let moments = layers.within("encoder", |layers| {
        let x = middle(layers, config, features)?;
        output(layers, config, x, 2 * config.latent_channels)
    })?;
    let moments = match config.use_quant_conv {
        true => layers.linear("quant_conv", moments, 2 * config.latent_channels)?,
        false => moments,
    };
    Ok(Moments {
        mean: layers.graph.slice(moments, 3, 0, config.latent_channels)?,
        log_variance: layers.graph.slice(
            moments,
            3,
            config.latent_channels,
            config.latent_channels,
        )?,
    })
}

/// Builds the decoder: `latents` `[batch, height, width, latent_channels]`, already divided by
/// `scaling_factor`, to pixels in about -1..=1,
/// `[batch, height * downscale, width * downscale, out_channels]`.
pub fn decode(layers: &mut Layers, config: &VaeConfig, latents: Tensor) -> Result<Tensor> {
    let mut x = (decode_start(layers, config, latents)?, None);
    for piece in decoder_pieces(config) {
        x = piece.build(layers, config, x)?;
    }
    Ok(x.0)
}

/// Builds the decoder's first half: `latents` to what the first of [`decoder_pieces`] takes. This
/// part sees the picture as a whole, for attention is in it.
pub fn decode_start(layers: &mut Layers, config: &VaeConfig, latents: Tensor) -> Result<Tensor> {
    keep_range(layers, config);
    let x = match config.use_post_quant_conv {
        true => layers.linear("post_quant_conv", latents, config.latent_channels)?,
        false => latents,
    };
    layers.within("decoder", |layers| {
        let x =
            layers.conv("conv_in", x, config.block_out_channels.last().copied().unwrap_or(0), 3)?;
        middle(layers, config, x)
    })
}

/// A part of the encoder's first half, or of the decoder's second. But for the statistics of the
/// group normalisation that it may begin with, a row of its result depends on three rows of its
/// input, so that it can be computed in bands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it does.
    pub kind: PieceKind,
    /// Full name of the layer.
    pub layer: String,
    /// Channels of the result.
    pub channels: usize,
}

/// What a piece does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PieceKind {
    /// A convolution alone.
    Convolution,
    /// The first half of a residual block, which passes its input on.
    ResnetStart,
    /// The second half: of the first one's result and input.
    ResnetEnd,
    /// To half the height and width.
    Downsample,
    /// To twice the height and width.
    Upsample,
    /// Normalisation, activation and convolution to pixels.
    Output,
}

/// The pieces before [`encode_end`], in order.
pub fn encoder_pieces(config: &VaeConfig) -> Vec<Piece> {
    let channels = &config.block_out_channels;
    let first = channels.first().copied().unwrap_or(0);
    let mut pieces = vec![Piece {
        kind: PieceKind::Convolution,
        layer: "encoder.conv_in".into(),
        channels: first,
    }];
    for (block, &channels) in channels.iter().enumerate() {
        let layer = format!("encoder.down_blocks.{block}");
        add_resnets(&mut pieces, &layer, config.layers_per_block, channels);
        if block + 1 < config.block_out_channels.len() {
            pieces.push(Piece {
                kind: PieceKind::Downsample,
                layer: format!("{layer}.downsamplers.0"),
                channels,
            });
        }
    }
    pieces
}

/// The pieces after [`decode_start`], in order.
pub fn decoder_pieces(config: &VaeConfig) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (block, &channels) in config.block_out_channels.iter().rev().enumerate() {
        let layer = format!("decoder.up_blocks.{block}");
        add_resnets(&mut pieces, &layer, config.layers_per_block + 1, channels);
        if block + 1 < config.block_out_channels.len() {
            pieces.push(Piece {
                kind: PieceKind::Upsample,
                layer: format!("{layer}.upsamplers.0"),
                channels,
            });
        }
    }
    pieces.push(Piece {
        kind: PieceKind::Output,
        layer: "decoder".into(),
        channels: config.out_channels,
    });
    pieces
}

fn add_resnets(pieces: &mut Vec<Piece>, layer: &str, resnets: usize, channels: usize) {
    for resnet in 0..resnets {
        let layer = format!("{layer}.resnets.{resnet}");
        pieces.push(Piece { kind: PieceKind::ResnetStart, layer: layer.clone(), channels });
        pieces.push(Piece { kind: PieceKind::ResnetEnd, layer, channels });
    }
}

impl Piece {
    /// Builds the piece on what the one before it gave: the features
    /// `[batch, height, width, channels]`, and inside of a residual block its input.
    pub fn build(
        &self,
        layers: &mut Layers,
        config: &VaeConfig,
        (x, input): (Tensor, Option<Tensor>),
    ) -> Result<(Tensor, Option<Tensor>)> {
        keep_range(layers, config);
        let (style, layer, channels) = (resnet_style(config), &self.layer, self.channels);
        Ok(match self.kind {
            PieceKind::Convolution => (layers.conv(layer, x, channels, 3)?, None),
            PieceKind::ResnetStart => {
                (layers.resnet_start(layer, x, None, channels, style)?, Some(x))
            }
            PieceKind::ResnetEnd => {
                (layers.resnet_end(layer, input.unwrap_or(x), x, channels, style)?, None)
            }
            PieceKind::Downsample => (layers.downsample(layer, x, channels, 0)?, None),
            PieceKind::Upsample => {
                let [_, height, length, _] = layers.image(x, "upsample")?;
                (layers.upsample(layer, x, channels, 2 * height, 2 * length)?, None)
            }
            PieceKind::Output => {
                (layers.within(layer, |layers| output(layers, config, x, channels))?, None)
            }
        })
    }

    /// The group normalisation that the piece begins with, by its full name.
    pub fn norm(&self) -> Option<String> {
        let norm = match self.kind {
            PieceKind::ResnetStart => "norm1",
            PieceKind::ResnetEnd => "norm2",
            PieceKind::Output => "conv_norm_out",
            PieceKind::Convolution | PieceKind::Downsample | PieceKind::Upsample => return None,
        };
        Some(format!("{}.{norm}", self.layer))
    }
}

/// The blocks at the lowest resolution: residual, attention, residual.
fn middle(layers: &mut Layers, config: &VaeConfig, x: Tensor) -> Result<Tensor> {
    let (resnet, width) = (resnet_style(config), layers.channels(x));
    layers.within("mid_block", |layers| {
        let mut x = layers.resnet("resnets.0", x, None, width, resnet)?;
        if config.mid_block_add_attention {
            x = layers.image_attention("attentions.0", x, config.norm_num_groups, EPSILON)?;
        }
        layers.resnet("resnets.1", x, None, width, resnet)
    })
}

fn output(layers: &mut Layers, config: &VaeConfig, x: Tensor, channels: usize) -> Result<Tensor> {
    let x = layers.group_norm("conv_norm_out", x, config.norm_num_groups, EPSILON)?;
    let x = layers.graph.activation(x, config.activation.into())?;
    layers.conv("conv_out", x, channels, 3)
}

fn resnet_style(config: &VaeConfig) -> Resnet {
    Resnet {
        groups: config.norm_num_groups,
        epsilon: EPSILON,
        activation: config.activation.into(),
    }
}
