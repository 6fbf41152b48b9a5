//! How [`regional_attention`](crate::graph::ops) runs on a graphics device.

use super::attention::{Blocks, Sharing};
use super::attention_vectors::{OneOfSeveral, Straight};
use super::filled::lower_filled;
use super::vector_width;
use crate::backend::wgpu::lower::{Lower, Lowering, Work};
use crate::backend::wgpu::{PASSING_LANES, Traits, Value};
use crate::graph::Shape;
use crate::graph::ops::attention::Attention;
use crate::graph::ops::regional_attention::{REGION_GROUP, Reach, RegionalAttention};

impl Lower for RegionalAttention {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        let straight = self.straight(traits, inputs.first()?, inputs.get(1)?)?;
        straight.iter().flatten().map(|straight| straight.scratch(1)).max()
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        if let Some(straight) =
            self.straight(&lowering.traits, lowering.input_shape(0), lowering.input_shape(1))
        {
            return self.lower_straight(lowering, &straight);
        }
        let (q, k) = (lowering.shape().clone(), lowering.input_shape(1).clone());
        let (batch, tokens, channels, keys) = (q[0], q[1], q[2], k[1]);
        let prompts = lowering.input_shape(4)[1];
        let d = channels / self.heads;
        let vector = vector_width(&[d]);
        // As in plain attention, so that one prompt alone gives the same numbers; no workgroup is
        // larger than a group of tokens.
        let sharing =
            Sharing::of(lowering.traits.schedule, d, tokens, 2, REGION_GROUP / PASSING_LANES);
        let Blocks { block, tile } = sharing.blocks(d);
        let Sharing { part, staged, lanes, per_lane, .. } = sharing;
        let work = Work {
            kernel: "regional_attention",
            params: [
                ("d", Value::from(d)),
                ("part", Value::from(part)),
                ("block", Value::from(block)),
                ("vector", Value::from(vector)),
                ("lanes", Value::from(lanes)),
                ("per_lane", Value::from(per_lane)),
                ("group", Value::from(REGION_GROUP)),
                ("staged", Value::from(staged)),
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
        lowering.dispatch(work, false);
    }
}

impl RegionalAttention {
    /// Straight-line code for each prompt that is read, if it suits all of them. That is asked for
    /// all tokens, so that a prompt is computed here as it is alone in the picture: one region over
    /// everything gives the very numbers of its prompt.
    fn straight(&self, traits: &Traits, q: &Shape, k: &Shape) -> Option<Vec<Option<Straight>>> {
        let attention =
            Attention { heads: self.heads, scale: self.scale, causal: false, to_prompt: true };
        let of = |prompt: &Reach| match prompt.tokens {
            0 => Some(None),
            tokens => Some(Some(
                Straight::of(traits, &attention, q, &[k[0], prompt.keys, k[2]].into())?
                    .with_rows(tokens),
            )),
        };
        self.reach.iter().map(of).collect()
    }

    fn lower_straight(&self, lowering: &mut Lowering<'_>, straight: &[Option<Straight>]) {
        let (tokens, all_keys) = (lowering.shape()[1], lowering.input_shape(1)[1]);
        lower_filled(lowering, lowering.output(), lowering.shape().elements(), 0.0);
        let mut first_key = 0;
        for (number, (straight, prompt)) in straight.iter().zip(&self.reach).enumerate() {
            let one = OneOfSeveral {
                first_key,
                all_keys,
                readers: lowering.input(6),
                first_reader: number * tokens,
                weights: lowering.input(4),
                prompts: self.reach.len(),
                number,
            };
            if let Some(straight) = straight {
                straight.forward_of(lowering, &one);
            }
            first_key += prompt.keys;
        }
    }
}
