//! T2I-Adapter (Mou et al. 2023), diffusers' `T2IAdapter`: a condition picture to one feature map
//! for each down block of a UNet.

use super::config::T2IAdapterConfig;
use crate::graph::{Result, Tensor};
use crate::nn::Layers;

/// Builds the feature maps, from the largest, for [`super::unet::Residuals::adapter`]: `condition`
/// is [`unshuffled`], `[batch, height, width, in_channels * downscale_factor^2]`.
pub fn t2i_adapter(
    layers: &mut Layers,
    config: &T2IAdapterConfig,
    condition: Tensor,
) -> Result<Vec<Tensor>> {
    layers.within("adapter", |layers| {
        let mut x = condition;
        if !config.light {
            x = layers.conv("conv_in", x, config.channels.first().copied().unwrap_or(1), 3)?;
        }
        let mut features = Vec::with_capacity(config.channels.len());
        for (i, &channels) in config.channels.iter().enumerate() {
            x = layers.within(format!("body.{i}"), |layers| {
                if config.halves(i) {
                    x = layers.graph.average_pool(x)?;
                }
                let inner = if config.light { channels / 4 } else { channels };
                if config.light || layers.channels(x) != channels {
                    x = layers.linear("in_conv", x, inner)?;
                }
                for j in 0..config.layers {
                    x = residual(
                        layers,
                        &format!("resnets.{j}"),
                        x,
                        if config.light { 3 } else { 1 },
                    )?;
                }
                if config.light { layers.linear("out_conv", x, channels) } else { Ok(x) }
            })?;
            features.push(x);
        }
        Ok(features)
    })
}

/// Two convolutions, added to what they are made of.
fn residual(layers: &mut Layers, name: &str, x: Tensor, second: usize) -> Result<Tensor> {
    layers.within(name, |layers| {
        let channels = layers.channels(x);
        let h = layers.conv("block1", x, channels, 3)?;
        let h = layers.graph.activation(h, crate::graph::ops::Function::Relu)?;
        let h = if second == 1 {
            layers.linear("block2", h, channels)?
        } else {
            layers.conv("block2", h, channels, second)?
        };
        layers.graph.add(h, x)
    })
}

/// Blocks of `factor` x `factor` pixels as channels, as torch's `pixel_unshuffle`: `pixels`
/// `[height, width, channels]`, sides multiples of `factor`, to
/// `[height / factor, width / factor, channels * factor * factor]`.
pub fn unshuffled(pixels: &[f32], width: usize, channels: usize, factor: usize) -> Vec<f32> {
    let height = pixels.len() / (width * channels).max(1);
    let mut out = Vec::with_capacity(pixels.len());
    for (y, x) in (0..height / factor).flat_map(|y| (0..width / factor).map(move |x| (y, x))) {
        for (c, dy) in (0..channels).flat_map(|c| (0..factor).map(move |dy| (c, dy))) {
            let row = ((y * factor + dy) * width + x * factor) * channels + c;
            out.extend((0..factor).filter_map(|dx| pixels.get(row + dx * channels)));
        }
    }
    out
}
