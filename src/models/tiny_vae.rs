//! A small autoencoder that stands in for the large one (Bohan's TAESD), diffusers'
//! `AutoencoderTiny`: residual blocks of three convolutions, no normalisation, no attention.

use crate::graph::ops::Function;
use crate::graph::{Result, Tensor};
use crate::nn::Layers;

/// How its halves are built, first layer to last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TinyVaeConfig {
    /// Empty where there is only a decoder.
    pub encoder: Vec<TinyLayer>,
    /// From latents to pixels.
    pub decoder: Vec<TinyLayer>,
    /// Channels of the latents.
    pub latent_channels: usize,
}

/// One of its layers, by its number in diffusers' list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TinyLayer {
    /// A 3x3 convolution; of stride 2 where it halves the size.
    Conv {
        /// Of the result.
        channels: usize,
        /// Whether there is one.
        bias: bool,
        /// 1 or 2.
        stride: usize,
    },
    /// The greater of x and 0.
    Relu,
    /// A residual block.
    Block {
        /// Of the result.
        channels: usize,
        /// What is passed by goes through a convolution.
        skip: bool,
    },
    /// To twice the size, by repeating pixels.
    Upsample,
}

/// More layers than any has.
const MOST: usize = 64;

impl TinyVaeConfig {
    /// From the shapes of its parameters, under diffusers' names (`decoder.layers.0.weight`).
    ///
    /// # Errors
    /// What is missing, by its name.
    pub fn of(shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<TinyVaeConfig, String> {
        let encoder = half(shape, "encoder")?;
        let decoder = half(shape, "decoder")?;
        let first = shape("decoder.layers.0.weight").and_then(|dims| dims.get(1).copied());
        let Some(latent_channels) = first else { return Err("decoder.layers.0.weight".into()) };
        Ok(TinyVaeConfig { encoder, decoder, latent_channels })
    }

    /// Pixels per latent along one side.
    pub fn downscale(&self) -> usize {
        1 << self.decoder.iter().filter(|layer| **layer == TinyLayer::Upsample).count().min(8)
    }
}

fn half(shape: &dyn Fn(&str) -> Option<Vec<usize>>, side: &str) -> Result<Vec<TinyLayer>, String> {
    let name = |i: usize, rest: &str| format!("{side}.layers.{i}.{rest}");
    let outputs = |name: &str| shape(name).and_then(|dims| dims.first().copied());
    let of = |i: usize| {
        if let Some(channels) = outputs(&name(i, "weight")) {
            let bias = shape(&name(i, "bias")).is_some();
            // Those that halve the size have none.
            let stride = if side == "encoder" && !bias { 2 } else { 1 };
            return Some(TinyLayer::Conv { channels, bias, stride });
        }
        let channels = outputs(&name(i, "conv.4.weight"))?;
        Some(TinyLayer::Block { channels, skip: shape(&name(i, "skip.weight")).is_some() })
    };
    let Some(last) = (0..MOST).rev().find(|i| of(*i).is_some()) else { return Ok(Vec::new()) };
    let layer = |i: usize| match of(i) {
        Some(layer) => Ok(layer),
        // What has no parameters.
        None if side == "decoder" && i == 1 => Ok(TinyLayer::Relu),
        None if side == "decoder" && i > 1 => Ok(TinyLayer::Upsample),
        None => Err(name(i, "weight")),
    };
    (0..=last).map(layer).collect()
}

/// Builds the decoder on latents as [`squashed`] makes them; pixels come out of 0 to 1.
pub fn decode(layers: &mut Layers, config: &TinyVaeConfig, latents: Tensor) -> Result<Tensor> {
    layers.within("decoder.layers", |layers| build(layers, &config.decoder, latents))
}

/// Builds the encoder on pixels of 0 to 1.
pub fn encode(layers: &mut Layers, config: &TinyVaeConfig, pixels: Tensor) -> Result<Tensor> {
    layers.within("encoder.layers", |layers| build(layers, &config.encoder, pixels))
}

/// Latents as the decoder takes them: none is far from 0.
pub fn squashed(latent: f32) -> f32 {
    (latent / 3.0).tanh() * 3.0
}

fn build(layers: &mut Layers, list: &[TinyLayer], mut x: Tensor) -> Result<Tensor> {
    for (i, layer) in list.iter().enumerate() {
        x = layers.within(i, |layers| match *layer {
            TinyLayer::Conv { channels, bias, stride } => conv(layers, x, channels, bias, stride),
            TinyLayer::Relu => layers.graph.activation(x, Function::Relu),
            TinyLayer::Block { channels, skip } => block(layers, x, channels, skip),
            TinyLayer::Upsample => {
                let [_, height, width, _] = layers.image(x, "upsample")?;
                layers.graph.upsample_nearest(x, 2 * height, 2 * width)
            }
        })?;
    }
    Ok(x)
}

fn block(layers: &mut Layers, x: Tensor, channels: usize, skip: bool) -> Result<Tensor> {
    let mut y = x;
    for i in [0, 2, 4] {
        y = layers.within(format!("conv.{i}"), |layers| conv(layers, y, channels, true, 1))?;
        if i < 4 {
            y = layers.graph.activation(y, Function::Relu)?;
        }
    }
    let passed = match skip {
        true => layers.within("skip", |layers| {
            let weight = layers.parameter("weight", [channels, layers.channels(x), 1, 1]);
            layers.graph.conv2d(x, weight, 1)
        })?,
        false => x,
    };
    let sum = layers.graph.add(y, passed)?;
    layers.graph.activation(sum, Function::Relu)
}

fn conv(
    layers: &mut Layers,
    x: Tensor,
    channels: usize,
    bias: bool,
    stride: usize,
) -> Result<Tensor> {
    let weight = layers.parameter("weight", [channels, layers.channels(x), 3, 3]);
    let padded = layers.graph.pad2d(x, [1; 4])?;
    let y = layers.graph.conv2d(padded, weight, stride)?;
    if !bias {
        return Ok(y);
    }
    let bias = layers.parameter("bias", [channels]);
    layers.graph.add(y, bias)
}
