//! Linear layers.

use super::Layers;
use crate::graph::{Result, Tensor};

impl Layers<'_> {
    /// x W^T + b, and what low-rank updates add: `x` `[.., in]` to `[.., out]`. On a feature map
    /// this is a 1x1 convolution, whose weight `[out, in, 1, 1]` serves as well.
    pub fn linear(&mut self, name: &str, x: Tensor, out: usize) -> Result<Tensor> {
        self.within(name, |layers| {
            let y = layers.product(x, out)?;
            let bias = layers.parameter("bias", [out]);
            layers.graph.add(y, bias)
        })
    }

    /// [`Layers::linear`] without a bias.
    pub fn linear_no_bias(&mut self, name: &str, x: Tensor, out: usize) -> Result<Tensor> {
        self.within(name, |layers| layers.product(x, out))
    }

    fn product(&mut self, x: Tensor, out: usize) -> Result<Tensor> {
        let update = self.lora_update(x, out, None)?;
        let weight = self.parameter("weight", [out, self.channels(x)]);
        let y = self.graph.linear(x, weight)?;
        let y = self.add_update(y, update)?;
        self.report(x, y);
        Ok(y)
    }
}
