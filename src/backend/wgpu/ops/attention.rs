//! How [`attention`](crate::graph::ops) runs on a graphics device.

use super::attention_vectors::Straight;
use super::vector_width;
use crate::backend::wgpu::lower::{Lower, Lowering, Work};
use crate::backend::wgpu::{PASSING_LANES, Params, Schedule, Traits, Value};
use crate::graph::Shape;
use crate::graph::ops::attention::Attention;

/// How attention's kernels share out a head: its tokens (or, backward, its keys), and the channels
/// of each.
pub(super) struct Sharing {
    /// Whether an invocation holds the vectors of its tokens whole. If not, sums are made in parts
    /// of `part` channels, and the vectors are read again for every block of what they meet.
    pub held: bool,
    pub part: usize,
    /// Whether the vectors that they meet are staged in workgroup memory.
    pub staged: bool,
    /// Invocations of a workgroup.
    pub lanes: usize,
    /// Tokens of an invocation.
    pub per_lane: usize,
}

/// How keys are met, going forward.
pub(super) struct Blocks {
    /// Keys at a time: more than two are no faster on software drivers where a token is held, and
    /// take twice as long to compile.
    pub block: usize,
    /// Keys in workgroup memory, where they are staged: what fits 16 KiB.
    pub tile: usize,
}

impl Sharing {
    /// Wider heads are not held.
    const WIDEST_HELD: usize = 160;
    const PART: usize = 64;
    /// Numbers that an invocation may hold where registers are few: the rest live in memory close
    /// by, and more take ever longer to compile.
    const REGISTERS: usize = 640;

    /// For heads of `d` channels, `tokens` of them, where a token takes `vectors` times as many
    /// numbers, and an invocation may have `most` tokens.
    pub fn of(schedule: Schedule, d: usize, tokens: usize, vectors: usize, most: usize) -> Sharing {
        let held = d <= Self::WIDEST_HELD;
        let part = if held { d } else { Self::PART };
        match schedule {
            // There a load costs as much as dozens of multiplications: what is loaded must serve
            // many tokens.
            Schedule::Registers { .. } | Schedule::Passed => {
                let fit =
                    (Self::REGISTERS / (vectors * part.max(1))).min(tokens.div_ceil(PASSING_LANES));
                let per_lane = 1 << fit.clamp(1, most).ilog2();
                Sharing { held, part, staged: false, lanes: PASSING_LANES, per_lane }
            }
            _ => {
                Sharing { held, part, staged: held, lanes: if held { 64 } else { 32 }, per_lane: 1 }
            }
        }
    }

    /// For heads of `d` channels.
    pub fn blocks(&self, d: usize) -> Blocks {
        let block = if self.held { 2 } else { 4 };
        Blocks { block, tile: (16384 / (2 * d * 4)).min(32) / block * block }
    }
}

impl Lower for Attention {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        let &[q, k, _] = inputs else { return None };
        Some(Straight::of(traits, self, q, k)?.scratch(1))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let masked = lowering.step.inputs.len() > 3;
        let straight =
            Straight::of(&lowering.traits, self, lowering.input_shape(0), lowering.input_shape(1));
        if let Some(straight) = straight.filter(|_| !masked) {
            return straight.forward(lowering);
        }
        if let Some(tiles) = self.tiles(lowering) {
            return self.lower_matrices(lowering, tiles);
        }
        let q = lowering.shape().clone();
        let (batch, tokens, channels) = (q[0], q[1], q[2]);
        let d = channels / self.heads;
        let vector = vector_width(&[d]);
        let sharing = Sharing::of(lowering.traits.schedule, d, tokens, 2, 16);
        let Blocks { block, tile } = sharing.blocks(d);
        let Sharing { part, staged, lanes, per_lane, .. } = sharing;
        let params = [
            ("d", Value::from(d)),
            ("part", Value::from(part)),
            ("block", Value::from(block)),
            ("vector", Value::from(vector)),
            ("lanes", Value::from(lanes)),
            ("per_lane", Value::from(per_lane)),
            ("causal", Value::from(self.causal)),
            ("masked", Value::from(masked)),
            ("staged", Value::from(staged)),
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
