//! Normalisation layers with their trained scale and shift.

use super::Layers;
use crate::graph::{Result, Tensor};

impl Layers<'_> {
    /// Group normalisation of `x` `[batch, .., channels]`.
    pub fn group_norm(
        &mut self,
        name: &str,
        x: Tensor,
        groups: usize,
        epsilon: f32,
    ) -> Result<Tensor> {
        self.within(name, |layers| {
            let statistics = match layers.given_statistics {
                true => {
                    let (name, batch) =
                        (format!("statistics.{}", layers.graph.path()), layers.graph.shape(x)[0]);
                    layers.graph.input(name, [batch, groups, 2])
                }
                false => layers.graph.group_norm_statistics(x, groups, epsilon)?,
            };
            let (weight, bias) = layers.scale_and_shift(x);
            layers.graph.group_norm(x, statistics, weight, bias)
        })
    }

    /// Layer normalisation of each row of `x` `[.., channels]`.
    pub fn layer_norm(&mut self, name: &str, x: Tensor, epsilon: f32) -> Result<Tensor> {
        self.within(name, |layers| {
            let (weight, bias) = layers.scale_and_shift(x);
            layers.graph.layer_norm(x, weight, bias, epsilon)
        })
    }

    fn scale_and_shift(&mut self, x: Tensor) -> (Tensor, Tensor) {
        let channels = self.channels(x);
        (self.parameter("weight", [channels]), self.parameter("bias", [channels]))
    }
}
