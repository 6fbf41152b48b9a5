//! How [`regional_attention`](crate::graph::ops) runs on a graphics device.

use super::attention::Sharing;
use super::vector_width;
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work};
use crate::graph::ops::regional_attention::{REGION_GROUP, RegionalAttention};

impl Lower for RegionalAttention {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (q, k) = (lowering.shape().clone(), lowering.input_shape(1).clone());
        let (batch, tokens, channels, keys) = (q[0], q[1], q[2], k[1]);
        let prompts = lowering.input_shape(4)[1];
        let d = channels / self.heads;
        let vector = vector_width(&[d]);
        // As in plain attention, so that one prompt alone gives the same numbers; no workgroup is
        // larger than a group of tokens.
        let Sharing { held, part, lanes, per_lane, block, tile } =
            Sharing::of(&lowering.traits.tuned.attention, d, 2);
        let per_lane = per_lane.min(REGION_GROUP / lanes);
        let mut work = Work {
            kernel: "regional_attention",
            params: [
                ("d", Value::from(d)),
                ("part", Value::from(part)),
                ("block", Value::from(block)),
                ("vector", Value::from(vector)),
                ("lanes", Value::from(lanes)),
                ("per_lane", Value::from(per_lane)),
                ("group", Value::from(REGION_GROUP)),
                ("staged", Value::from(held)),
                ("tile", Value::from(tile)),
            ]
            .into(),
            uniforms: vec![
                ("tokens", tokens.into()),
                ("keys", keys.into()),
                ("channels", (channels / vector).into()),
                ("share", (batch / k[0]).into()),
                ("prompts", prompts.into()),
                // Devices compute 2^x, not e^x.
                ("scale", (self.scale * std::f32::consts::LOG2_E).into()),
            ],
            grid: [tokens.div_ceil(lanes * per_lane), self.heads * d.div_ceil(part), batch],
            bindings: vec![
                ("q", lowering.input(0)),
                ("k", lowering.input(1)),
                ("v", lowering.input(2)),
                ("order", lowering.input(3)),
                ("weights", lowering.input(4)),
                ("spans", lowering.input(5)),
                ("y", lowering.output()),
            ],
            flops: 4 * (batch * channels * self.pairs()) as u64,
        };
        // Matrices, too, count channels in vectors of 4: heads have a multiple of them.
        self.by_matrices(lowering, &mut work);
        lowering.dispatch(work, false);
    }
}
