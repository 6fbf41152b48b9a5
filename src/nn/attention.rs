//! Attention, as diffusers lays it out: `to_q`, `to_k`, `to_v`, `to_out.0`.

use super::{Layers, Prompt};
use crate::graph::{Result, Tensor};

impl Layers<'_> {
    /// Softmax attention of `heads` heads with the usual scale 1 / sqrt(channels of a head): `q`
    /// `[batch, tokens, channels]`, `k` and `v` `[batch, keys, channels]`.
    pub fn attend(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: usize,
        causal: bool,
    ) -> Result<Tensor> {
        let scale = self.attention_scale(q, heads);
        self.graph.attention(q, k, v, heads, scale, causal)
    }

    /// 1 / sqrt(channels of a head).
    pub(super) fn attention_scale(&self, q: Tensor, heads: usize) -> f32 {
        1.0 / (self.channels(q) as f32 / heads as f32).sqrt()
    }

    /// Every token of `x` `[batch, tokens, channels]` attends to all tokens, or to those that
    /// `mask` lets it see ([`crate::graph::Graph::masked_attention`]). `bias`: whether q, k and v
    /// have one.
    pub fn self_attention(
        &mut self,
        name: &str,
        x: Tensor,
        heads: usize,
        bias: bool,
        mask: Option<Tensor>,
    ) -> Result<Tensor> {
        self.within(name, |layers| layers.attend_to_itself(x, heads, bias, mask))
    }

    /// The VAE's attention: every place of the feature map `x` `[batch, height, width, channels]`
    /// attends to all places, with one head and normalised before; added to `x`.
    pub fn image_attention(
        &mut self,
        name: &str,
        x: Tensor,
        groups: usize,
        epsilon: f32,
    ) -> Result<Tensor> {
        let [batch, height, width, channels] = self.image(x, "attention")?;
        self.within(name, |layers| {
            let h = layers.group_norm("group_norm", x, groups, epsilon)?;
            let h = layers.graph.reshape(h, [batch, height * width, channels])?;
            let h = layers.attend_to_itself(h, 1, true, None)?;
            let h = layers.graph.reshape(h, [batch, height, width, channels])?;
            layers.graph.add(x, h)
        })
    }

    /// Every token of `x` `[batch, tokens, channels]` attends to the prompt.
    pub fn cross_attention(
        &mut self,
        name: &str,
        x: Tensor,
        heads: usize,
        prompt: &mut Prompt,
    ) -> Result<Tensor> {
        let channels = self.channels(x);
        self.within(name, |layers| {
            let q = layers.linear_no_bias("to_q", x, channels)?;
            let y = prompt.attend(layers, q, heads)?;
            layers.linear("to_out.0", y, channels)
        })
    }

    /// Keys and values `[batch, tokens, channels]` that a cross-attention makes of `text`
    /// `[batch, tokens, text channels]`.
    pub fn keys_values(&mut self, text: Tensor, channels: usize) -> Result<(Tensor, Tensor)> {
        let before = self.graph.keep_sums_whole(true);
        let both = (
            self.linear_no_bias("to_k", text, channels),
            self.linear_no_bias("to_v", text, channels),
        );
        self.graph.keep_sums_whole(before);
        Ok((both.0?, both.1?))
    }

    fn attend_to_itself(
        &mut self,
        x: Tensor,
        heads: usize,
        bias: bool,
        mask: Option<Tensor>,
    ) -> Result<Tensor> {
        let channels = self.channels(x);
        let mut part = |name| match bias {
            true => self.linear(name, x, channels),
            false => self.linear_no_bias(name, x, channels),
        };
        let (q, k, v) = (part("to_q")?, part("to_k")?, part("to_v")?);
        let y = match mask {
            None => self.attend(q, k, v, heads, false)?,
            Some(mask) => {
                self.graph.masked_attention(q, k, v, mask, heads, self.attention_scale(q, heads))?
            }
        };
        self.linear("to_out.0", y, channels)
    }
}
