//! The transformer that stands between the residual blocks of a UNet.

use super::{Layers, Prompt};
use crate::graph::{Result, Tensor};

/// Of diffusers' `Transformer2DModel`: fixed, whatever the config says of other norms.
const GROUP_NORM_EPSILON: f32 = 1e-6;
const LAYER_NORM_EPSILON: f32 = 1e-5;

/// The shape of one transformer.
#[derive(Clone, Copy, Debug)]
pub struct Transformer {
    /// Of every attention in the block.
    pub heads: usize,
    /// Transformer blocks, one after another.
    pub depth: usize,
    /// Groups of its group normalisation.
    pub groups: usize,
    /// The first attention of a block reads the prompt too, instead of the picture (upscalers do
    /// so).
    pub only_cross_attention: bool,
}

impl Layers<'_> {
    /// The feature map `x` `[batch, height, width, channels]` as tokens, through `depth` blocks,
    /// added to itself.
    pub fn transformer(
        &mut self,
        name: &str,
        x: Tensor,
        style: Transformer,
        prompt: &mut Prompt,
    ) -> Result<Tensor> {
        self.block(|layers| layers.transformer_layers(name, x, style, prompt))
    }

    fn transformer_layers(
        &mut self,
        name: &str,
        x: Tensor,
        style: Transformer,
        prompt: &mut Prompt,
    ) -> Result<Tensor> {
        let [batch, height, width, channels] = self.image(x, "transformer")?;
        if let Some(watch) = &mut self.watch {
            watch.size = [height, width];
        }
        self.within(name, |layers| {
            // A 1x1 convolution on the map and a linear layer on its tokens are one and the same
            // here.
            let h = layers.group_norm("norm", x, style.groups, GROUP_NORM_EPSILON)?;
            let h = layers.linear("proj_in", h, channels)?;
            let mut h = layers.graph.reshape(h, [batch, height * width, channels])?;
            for i in 0..style.depth {
                h = layers.transformer_block(
                    &format!("transformer_blocks.{i}"),
                    h,
                    style,
                    prompt,
                )?;
            }
            let h = layers.linear("proj_out", h, channels)?;
            let h = layers.graph.reshape(h, [batch, height, width, channels])?;
            layers.graph.add(x, h)
        })
    }

    /// Self-attention, cross-attention and feed-forward, each normalised before and added after:
    /// `[batch, tokens, channels]`.
    fn transformer_block(
        &mut self,
        name: &str,
        x: Tensor,
        style: Transformer,
        prompt: &mut Prompt,
    ) -> Result<Tensor> {
        self.within(name, |layers| {
            let h = layers.layer_norm("norm1", x, LAYER_NORM_EPSILON)?;
            let h = match style.only_cross_attention {
                true => layers.cross_attention("attn1", h, style.heads, prompt)?,
                false => {
                    let mask = prompt.mask(layers, h)?;
                    layers.self_attention("attn1", h, style.heads, false, mask)?
                }
            };
            let x = layers.graph.add(x, h)?;
            let h = layers.layer_norm("norm2", x, LAYER_NORM_EPSILON)?;
            let h = layers.cross_attention("attn2", h, style.heads, prompt)?;
            let x = layers.graph.add(x, h)?;
            let h = layers.layer_norm("norm3", x, LAYER_NORM_EPSILON)?;
            let h = layers.feed_forward("ff", h)?;
            layers.graph.add(x, h)
        })
    }

    /// Gated feed-forward, four times as wide inside.
    fn feed_forward(&mut self, name: &str, x: Tensor) -> Result<Tensor> {
        let channels = self.channels(x);
        self.within(name, |layers| {
            let h = layers.linear("net.0.proj", x, 8 * channels)?;
            let h = layers.graph.geglu(h)?;
            layers.linear("net.2", h, channels)
        })
    }
}
