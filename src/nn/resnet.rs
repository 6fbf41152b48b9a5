//! The residual block of UNet and VAE.

use super::Layers;
use crate::graph::ops::Function;
use crate::graph::{Result, Tensor};

/// What all residual blocks of a model have in common.
#[derive(Clone, Copy, Debug)]
pub struct Resnet {
    /// Of both normalisations.
    pub groups: usize,
    /// Added to variances.
    pub epsilon: f32,
    /// After each normalisation.
    pub activation: Function,
}

impl Layers<'_> {
    /// norm, activation, convolution, time, norm, activation, convolution, plus the input: `x`
    /// `[batch, height, width, in]` to `[.., out]`. `time` is the activated time embedding
    /// `[batch, channels]`; the VAE has none.
    pub fn resnet(
        &mut self,
        name: &str,
        x: Tensor,
        time: Option<Tensor>,
        out: usize,
        style: Resnet,
    ) -> Result<Tensor> {
        self.block(|layers| {
            let h = layers.resnet_start(name, x, time, out, style)?;
            layers.resnet_end(name, x, h, out, style)
        })
    }

    /// The first half: norm, activation, convolution, time.
    pub fn resnet_start(
        &mut self,
        name: &str,
        x: Tensor,
        time: Option<Tensor>,
        out: usize,
        style: Resnet,
    ) -> Result<Tensor> {
        self.within(name, |layers| {
            let mut h = layers.group_norm("norm1", x, style.groups, style.epsilon)?;
            h = layers.graph.activation(h, style.activation)?;
            // Before the convolution, which adds it while its result is in registers.
            let project = |time: Tensor| -> Result<Tensor> {
                let batch = layers.graph.shape(time).rows();
                let row = layers.linear("time_emb_proj", time, out)?;
                layers.graph.reshape(row, [batch, 1, 1, out])
            };
            let row = time.map(project).transpose()?;
            h = layers.conv("conv1", h, out, 3)?;
            match row {
                Some(row) => layers.graph.add(h, row),
                None => Ok(h),
            }
        })
    }

    /// The second half: norm, activation, convolution of the first half's result `h`, plus the
    /// block's input `x`.
    pub fn resnet_end(
        &mut self,
        name: &str,
        x: Tensor,
        h: Tensor,
        out: usize,
        style: Resnet,
    ) -> Result<Tensor> {
        self.within(name, |layers| {
            let mut h = layers.group_norm("norm2", h, style.groups, style.epsilon)?;
            h = layers.graph.activation(h, style.activation)?;
            h = layers.conv("conv2", h, out, 3)?;
            let skip = if layers.channels(x) == out {
                x
            } else {
                layers.linear("conv_shortcut", x, out)?
            };
            layers.graph.add(skip, h)
        })
    }
}
