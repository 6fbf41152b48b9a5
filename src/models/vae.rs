//! The autoencoder between pictures and latents, diffusers' `AutoencoderKL`.

use super::config::VaeConfig;
use crate::graph::{Result, Tensor};
use crate::nn::{Layers, Resnet};

/// Of every normalisation in the autoencoder.
pub const EPSILON: f32 = 1e-6;

/// The distribution of latents that a picture is encoded to, each `[batch, height, width, latent_channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    pub mean: Tensor,
    /// As the model gives it: diffusers limits it to -30..=20 before use.
    pub log_variance: Tensor,
}

/// Builds the encoder: `pixels` in -1..=1, `[batch, height, width, in_channels]`, both sizes multiples of
/// [`VaeConfig::downscale`]. Latents for a UNet are `scaling_factor` times a sample of the result.
pub fn encode(layers: &mut Layers, config: &VaeConfig, pixels: Tensor) -> Result<Moments> {
    let (channels, factor) = (&config.block_out_channels, config.downscale());
    let [_, height, length, _] = layers.image(pixels, "vae")?;
    if height % factor != 0 || length % factor != 0 || height * length == 0 {
        let message = format!("a picture of {height}x{length} does not divide into latents of {factor}x{factor} pixels");
        return Err(layers.graph.shape_error("vae", message));
    }
    let resnet = resnet_style(config);
    let moments = layers.within("encoder", |layers| {
        let mut x = layers.conv("conv_in", pixels, channels[0], 3)?;
        for (i, &width) in channels.iter().enumerate() {
            x = layers.within(format!("down_blocks.{i}"), |layers| {
                for j in 0..config.layers_per_block {
                    x = layers.resnet(&format!("resnets.{j}"), x, None, width, resnet)?;
                }
                if i + 1 < channels.len() { layers.downsample("downsamplers.0", x, width, 0) } else { Ok(x) }
            })?;
        }
        x = middle(layers, config, x)?;
        output(layers, config, x, 2 * config.latent_channels)
    })?;
    let moments = match config.use_quant_conv {
        true => layers.linear("quant_conv", moments, 2 * config.latent_channels)?,
        false => moments,
    };
    Ok(Moments {
        mean: layers.graph.slice(moments, 3, 0, config.latent_channels)?,
        log_variance: layers.graph.slice(moments, 3, config.latent_channels, config.latent_channels)?,
    })
}

/// Builds the decoder: `latents` `[batch, height, width, latent_channels]`, already divided by `scaling_factor`, to pixels in
/// about -1..=1, `[batch, height * downscale, width * downscale, out_channels]`.
pub fn decode(layers: &mut Layers, config: &VaeConfig, latents: Tensor) -> Result<Tensor> {
    let mut x = decode_start(layers, config, latents)?;
    for piece in decoder_pieces(config) {
        x = piece.build(layers, config, x)?;
    }
    Ok(x.0)
}

/// Builds the decoder up to its up blocks: `latents` to what the first of [`decoder_pieces`] takes. This part sees the picture
/// as a whole, for attention is in it.
pub fn decode_start(layers: &mut Layers, config: &VaeConfig, latents: Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let x = match config.use_post_quant_conv {
        true => layers.linear("post_quant_conv", latents, config.latent_channels)?,
        false => latents,
    };
    let x = layers.within("decoder", |layers| {
        let x = layers.conv("conv_in", x, *config.block_out_channels.last().unwrap_or(&0), 3)?;
        middle(layers, config, x)
    })?;
    Ok((x, None))
}

/// A part of the decoder's second half. But for the statistics of its group normalisation, a row of its result depends on three
/// rows of its input, so that it can be computed in bands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderPiece {
    /// The first half of a residual block, which passes its input on.
    ResnetStart { block: usize, resnet: usize },
    /// The second half: of the first one's result and input.
    ResnetEnd { block: usize, resnet: usize },
    /// To twice the height and width.
    Upsample { block: usize },
    /// To pixels.
    Output,
}

/// The pieces after [`decode_start`], in order.
pub fn decoder_pieces(config: &VaeConfig) -> Vec<DecoderPiece> {
    let blocks = config.block_out_channels.len();
    let mut pieces = Vec::new();
    for block in 0..blocks {
        for resnet in 0..config.layers_per_block + 1 {
            pieces.extend([DecoderPiece::ResnetStart { block, resnet }, DecoderPiece::ResnetEnd { block, resnet }]);
        }
        if block + 1 < blocks {
            pieces.push(DecoderPiece::Upsample { block });
        }
    }
    pieces.push(DecoderPiece::Output);
    pieces
}

impl DecoderPiece {
    /// Builds the piece on what the one before it gave: the features `[batch, height, width, channels]`, and inside of a
    /// residual block its input.
    pub fn build(
        self,
        layers: &mut Layers,
        config: &VaeConfig,
        (x, input): (Tensor, Option<Tensor>),
    ) -> Result<(Tensor, Option<Tensor>)> {
        let (style, layer) = (resnet_style(config), self.layer());
        Ok(match self {
            DecoderPiece::ResnetStart { .. } => (layers.resnet_start(&layer, x, None, self.width(config), style)?, Some(x)),
            DecoderPiece::ResnetEnd { .. } => {
                (layers.resnet_end(&layer, input.unwrap_or(x), x, self.width(config), style)?, None)
            }
            DecoderPiece::Upsample { .. } => {
                let [_, height, length, _] = layers.image(x, "upsample")?;
                (layers.upsample(&layer, x, self.width(config), 2 * height, 2 * length)?, None)
            }
            DecoderPiece::Output => (layers.within(layer, |layers| output(layers, config, x, config.out_channels))?, None),
        })
    }

    /// The group normalisation that the piece begins with, by its full name.
    pub fn norm(self) -> Option<String> {
        let layer = self.layer();
        match self {
            DecoderPiece::ResnetStart { .. } => Some(format!("{layer}.norm1")),
            DecoderPiece::ResnetEnd { .. } => Some(format!("{layer}.norm2")),
            DecoderPiece::Upsample { .. } => None,
            DecoderPiece::Output => Some(format!("{layer}.conv_norm_out")),
        }
    }

    /// Rows of the result for each row of the input.
    pub fn scale(self) -> usize {
        1 + usize::from(matches!(self, DecoderPiece::Upsample { .. }))
    }

    fn width(self, config: &VaeConfig) -> usize {
        let of = |block: usize| config.block_out_channels.iter().rev().nth(block).copied().unwrap_or(0);
        match self {
            DecoderPiece::ResnetStart { block, .. } | DecoderPiece::ResnetEnd { block, .. } => of(block),
            DecoderPiece::Upsample { block } => of(block),
            DecoderPiece::Output => config.out_channels,
        }
    }

    fn layer(self) -> String {
        match self {
            DecoderPiece::ResnetStart { block, resnet } | DecoderPiece::ResnetEnd { block, resnet } => {
                format!("decoder.up_blocks.{block}.resnets.{resnet}")
            }
            DecoderPiece::Upsample { block } => format!("decoder.up_blocks.{block}.upsamplers.0"),
            DecoderPiece::Output => "decoder".into(),
        }
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
    Resnet { groups: config.norm_num_groups, epsilon: EPSILON, activation: config.activation.into() }
}
