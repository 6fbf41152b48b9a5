//! How [`attention`](crate::graph::ops) runs on a graphics device.

use super::vector_width;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work};
use crate::backend::wgpu::tuned::AttentionSizes;
use crate::backend::wgpu::{Params, Value};
use crate::graph::ops::attention::Attention;

/// How attention's kernels share out a head of `d` channels: its tokens (or, backward, its keys),
/// the channels of each, and what they meet.
pub(super) struct Sharing {
    /// Whether an invocation holds the vectors of its tokens whole, and those that they meet are
    /// staged in workgroup memory. If not, sums are made in parts of `part` channels, and the
    /// vectors are read again for every block of what they meet.
    pub held: bool,
    pub part: usize,
    /// Invocations of a workgroup.
    pub lanes: usize,
    /// Tokens of an invocation.
    pub per_lane: usize,
    /// Keys met at a time.
    pub block: usize,
    /// Keys in workgroup memory, where they are staged.
    pub tile: usize,
}

impl Sharing {
    /// Bytes of workgroup memory that any device has.
    const STAGE: usize = 16384;

    /// `met`: tensors of which a tile is staged.
    pub fn of(sizes: &AttentionSizes, d: usize, met: usize) -> Sharing {
        let held = d <= sizes.widest_held;
        let (part, lanes, block) = match held {
            true if d <= sizes.widest_narrow => (d, sizes.lanes_held, sizes.block_narrow),
            true => (d, sizes.lanes_held, sizes.block_held),
            false => (sizes.part.min(d), sizes.lanes_parts, sizes.block_parts),
        };
        let tile = (Self::STAGE / (met * d * 4).max(1)).min(sizes.staged) / block * block;
        let per_lane = sizes.per_lane;
        Sharing { held, part, lanes, per_lane, block, tile: tile.max(block) }
    }
}

impl Lower for Attention {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        if self.lower_matrices(lowering) {
            return;
        }
        let masked = lowering.step.inputs.len() > 3;
        let q = lowering.shape().clone();
        let (batch, tokens, channels) = (q[0], q[1], q[2]);
        let d = channels / self.heads;
        let vector = vector_width(&[d]);
        let Sharing { held, part, lanes, per_lane, block, tile } =
            Sharing::of(&lowering.traits.tuned.attention, d, 2);
        let params = [
            ("d", Value::from(d)),
            ("part", Value::from(part)),
            ("block", Value::from(block)),
            ("vector", Value::from(vector)),
            ("lanes", Value::from(lanes)),
            ("per_lane", Value::from(per_lane)),
            ("causal", Value::from(self.causal)),
            ("masked", Value::from(masked)),
            ("staged", Value::from(held)),
            ("tile", Value::from(tile)),
        ]
        .into();
        let grid = [tokens.div_ceil(lanes * per_lane), self.heads * d.div_ceil(part), batch];
        self.dispatch(lowering, "attention", params, vector, grid);
    }
}

impl Attention {
    /// Dispatches `kernel`, one that keeps the contract of attention.wgsl and counts channels in
    /// vectors of `vector`.
    pub(super) fn dispatch(
        &self,
        lowering: &mut Lowering<'_>,
        kernel: &'static str,
        params: Params,
        vector: usize,
        grid: [usize; 3],
    ) {
        let (q, k) = (lowering.shape().clone(), lowering.input_shape(1).clone());
        let (batch, tokens, channels, keys) = (q[0], q[1], q[2], k[1]);
        let mut work = Work {
            kernel,
            params,
            uniforms: vec![
                ("tokens", tokens.into()),
                ("keys", keys.into()),
                ("channels", (channels / vector).into()),
                ("share", (batch / k[0]).into()),
                // Devices compute 2^x, not e^x.
                ("scale", (self.scale * std::f32::consts::LOG2_E).into()),
            ],
            grid,
            bindings: vec![
                ("q", lowering.input(0)),
                ("k", lowering.input(1)),
                ("v", lowering.input(2)),
                ("y", lowering.output()),
            ],
            flops: 4 * (batch * tokens * keys * channels) as u64,
        };
        if lowering.step.inputs.len() > 3 {
            work.bindings.push(("mask", lowering.input(3)));
        }
        lowering.dispatch(work, false);
    }
}
