//! The transformer layer of CLIP's towers.

use super::Layers;
use crate::graph::ops::Function;
use crate::graph::{Result, Tensor};

/// What all layers of a tower have in common.
#[derive(Clone, Copy, Debug)]
pub struct ClipLayer {
    /// Attention heads.
    pub heads: usize,
    /// Channels inside of the feed-forward.
    pub intermediate: usize,
    /// Of the feed-forward layer.
    pub activation: Function,
    /// Added to variances.
    pub epsilon: f32,
    /// Text: a token sees those before it. Pictures: all see all.
    pub causal: bool,
}

impl Layers<'_> {
    /// Self-attention and feed-forward, each normalised before and added after: `x`
    /// `[batch, tokens, channels]`.
    pub fn clip_layer(&mut self, name: &str, x: Tensor, style: ClipLayer) -> Result<Tensor> {
        self.block(|layers| {
            // A prompt's encoding doesn't depend on how many are encoded at a time.
            let before = layers.graph.keep_sums_whole(style.causal);
            let y = layers.attention_and_feed_forward(name, x, style);
            layers.graph.keep_sums_whole(before);
            y
        })
    }

    fn attention_and_feed_forward(
        &mut self,
        name: &str,
        x: Tensor,
        style: ClipLayer,
    ) -> Result<Tensor> {
        let channels = self.channels(x);
        self.within(name, |layers| {
            let h = layers.layer_norm("layer_norm1", x, style.epsilon)?;
            let h = layers.within("self_attn", |layers| {
                let q = layers.linear("q_proj", h, channels)?;
                let k = layers.linear("k_proj", h, channels)?;
                let v = layers.linear("v_proj", h, channels)?;
                let y = layers.attend(q, k, v, style.heads, style.causal)?;
                layers.linear("out_proj", y, channels)
            })?;
            let x = layers.graph.add(x, h)?;
            let h = layers.layer_norm("layer_norm2", x, style.epsilon)?;
            let h = layers.within("mlp", |layers| {
                let h = layers.linear("fc1", h, style.intermediate)?;
                let h = layers.graph.activation(h, style.activation)?;
                layers.linear("fc2", h, channels)
            })?;
            layers.graph.add(x, h)
        })
    }
}
