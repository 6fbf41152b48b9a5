//! Convolutions, and the changes of resolution that are made of them.

use super::Layers;
use super::lora::Window;
use crate::graph::{Result, Tensor};

impl Layers<'_> {
    /// `kernel` x `kernel` convolution (an odd number) that keeps the size, and what low-rank
    /// updates add: `[batch, height, width, out]`.
    pub fn conv(&mut self, name: &str, x: Tensor, out: usize, kernel: usize) -> Result<Tensor> {
        self.conv_strided(name, x, out, kernel, 1, [kernel / 2; 4])
    }

    /// Convolution after `padding` (top, bottom, left, right) with zeros.
    pub fn conv_strided(
        &mut self,
        name: &str,
        x: Tensor,
        out: usize,
        kernel: usize,
        stride: usize,
        padding: [usize; 4],
    ) -> Result<Tensor> {
        self.within(name, |layers| {
            let weight = layers.parameter("weight", [out, layers.channels(x), kernel, kernel]);
            let bias = layers.parameter("bias", [out]);
            let x = if padding == [0; 4] { x } else { layers.graph.pad2d(x, padding)? };
            let update = layers.lora_update(x, out, Some(Window { kernel, stride }))?;
            let y = layers.graph.conv2d(x, weight, stride)?;
            let y = layers.add_update(y, update)?;
            layers.graph.add(y, bias)
        })
    }

    /// Half the size, by a 3x3 convolution of stride 2. `padding` 0 means what it does in
    /// diffusers: one row below and one column to the right, as the VAE was trained.
    pub fn downsample(
        &mut self,
        name: &str,
        x: Tensor,
        out: usize,
        padding: usize,
    ) -> Result<Tensor> {
        let edges = if padding == 0 { [0, 1, 0, 1] } else { [padding; 4] };
        self.within(name, |layers| layers.conv_strided("conv", x, out, 3, 2, edges))
    }

    /// Nearest-neighbour enlargement to `height` x `width`, then a 3x3 convolution.
    pub fn upsample(
        &mut self,
        name: &str,
        x: Tensor,
        out: usize,
        height: usize,
        width: usize,
    ) -> Result<Tensor> {
        self.within(name, |layers| {
            let x = layers.graph.upsample_nearest(x, height, width)?;
            layers.conv("conv", x, out, 3)
        })
    }
}
