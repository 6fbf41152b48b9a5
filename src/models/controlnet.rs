//! ControlNet (Zhang et al. 2023), diffusers' `ControlNetModel`: a copy of a UNet's first half that
//! sees a picture besides, and says what is to be added to the UNet's skip connections.

use super::config::ControlNetConfig;
use super::unet;
use crate::graph::{Result, Tensor};
use crate::nn::{Encodings, Layers, Prompt};

/// What a ControlNet reads in every step.
#[derive(Clone, Copy, Debug)]
pub struct ControlNetInputs<'a> {
    /// As the UNet's.
    pub sample: Tensor,
    /// As the UNet's.
    pub time: Tensor,
    /// As the UNet's.
    pub addition: Option<Tensor>,
    /// The prompt, with this network's own keys and values where they are made beforehand.
    pub prompt: Encodings<'a>,
    /// [`embedding`] of the picture, `[height, width, block_out_channels[0]]` of the latents.
    pub embedding: Tensor,
}

/// What is to be added, for [`unet::Residuals`].
#[derive(Clone, Debug)]
pub struct ControlNetOutput {
    /// One for each skip connection, in the UNet's order.
    pub skips: Vec<Tensor>,
    /// For the middle block's output.
    pub middle: Tensor,
}

/// Builds the picture's encoder: `condition` `[1, height, width, condition_channels]` in pixels, 0
/// to 1, to `[1, .., .., block_out_channels[0]]` at [`ControlNetConfig::downscale`]. It does not
/// depend on the step.
pub fn embedding(
    layers: &mut Layers,
    config: &ControlNetConfig,
    condition: Tensor,
) -> Result<Tensor> {
    let activation = crate::graph::ops::Function::Silu;
    layers.within("controlnet_cond_embedding", |layers| {
        let widths = &config.embedding_channels;
        let mut x = layers.conv("conv_in", condition, widths.first().copied().unwrap_or(1), 3)?;
        x = layers.graph.activation(x, activation)?;
        for (i, pair) in widths.windows(2).enumerate() {
            x = layers.conv(&format!("blocks.{}", 2 * i), x, pair[0], 3)?;
            x = layers.graph.activation(x, activation)?;
            x = layers.conv_strided(&format!("blocks.{}", 2 * i + 1), x, pair[1], 3, 2, [1; 4])?;
            x = layers.graph.activation(x, activation)?;
        }
        layers.conv("conv_out", x, config.unet.block_out_channels.first().copied().unwrap_or(1), 3)
    })
}

/// Builds one pass.
pub fn controlnet(
    layers: &mut Layers,
    config: &ControlNetConfig,
    inputs: &ControlNetInputs,
) -> Result<ControlNetOutput> {
    let unet = &config.unet;
    let mut prompt = Prompt::new(inputs.prompt);
    let told = unet::Told { class: None, addition: inputs.addition };
    let time = unet::time_embedding(layers, unet, inputs.time, None, told)?;
    let x = layers.conv("conv_in", inputs.sample, unet.block_out_channels[0], 3)?;
    let x = layers.graph.add(x, inputs.embedding)?;
    let (skips, middle) = unet::first_half(layers, unet, x, time, &mut prompt, &[])?;
    prompt.finish(layers)?;
    let out = skips.iter().enumerate().map(|(i, &skip)| {
        let channels = layers.channels(skip);
        layers.linear(&format!("controlnet_down_blocks.{i}"), skip, channels)
    });
    let skips = out.collect::<Result<_>>()?;
    let channels = layers.channels(middle);
    Ok(ControlNetOutput { skips, middle: layers.linear("controlnet_mid_block", middle, channels)? })
}
