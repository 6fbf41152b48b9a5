//! The autoencoder between pictures and latents, diffusers' `AutoencoderKL`.

use super::config::VaeConfig;
use crate::graph::{Result, Tensor};
use crate::nn::{Layers, Resnet};

/// Of every normalisation in the autoencoder.
const EPSILON: f32 = 1e-6;

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
    let resnet = resnet_style(config);
    let x = match config.use_post_quant_conv {
        true => layers.linear("post_quant_conv", latents, config.latent_channels)?,
        false => latents,
    };
    layers.within("decoder", |layers| {
        let widths: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let mut x = layers.conv("conv_in", x, widths[0], 3)?;
        x = middle(layers, config, x)?;
        for (i, &width) in widths.iter().enumerate() {
            x = layers.within(format!("up_blocks.{i}"), |layers| {
                for j in 0..config.layers_per_block + 1 {
                    x = layers.resnet(&format!("resnets.{j}"), x, None, width, resnet)?;
                }
                if i + 1 == widths.len() {
                    return Ok(x);
                }
                let [_, height, length, _] = layers.image(x, "upsample")?;
                layers.upsample("upsamplers.0", x, width, 2 * height, 2 * length)
            })?;
        }
        output(layers, config, x, config.out_channels)
    })
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
