//! How [`attention_gradient`](crate::graph::ops) runs on a graphics device.

use super::attention::Sharing;
use super::attention_matrices::Lines;
use super::vector_width;
use crate::backend::wgpu::lowering::{BufferView, Lower, Lowering, Work};
use crate::backend::wgpu::{Params, Schedule, Traits, Uniform, Value};
use crate::graph::ops::attention::Attention;
use crate::graph::ops::attention_gradient::{
    AttentionKeysValues, AttentionQueries, AttentionRows, Extents,
};

/// What the three kernels have in common: a row, query or key of one head to an invocation, against
/// all of the others.
pub(super) struct Kernel {
    pub name: &'static str,
    /// Invocations wanted for each head of a batch entry, and batch entries.
    pub each: [usize; 2],
    /// Tensors of which the kernel stages a tile.
    pub met: usize,
    /// Whether the elements of a head are made in parts where they are many.
    pub parts: bool,
    /// Operations for each pair of a query and a key and each channel.
    pub flops: usize,
}

/// How a kernel by matrices divides one side of an attention, and what it meets.
#[derive(Clone, Copy, Debug)]
struct Meeting {
    lines: Lines,
    /// Lines met at a time.
    met: usize,
}

impl Meeting {
    /// Widest heads whose sums of keys and values fit one invocation's registers together.
    const TOGETHER: usize = 80;

    /// For heads of `d` channels, if kernels may round and the device has matrices. `sides`: arrays
    /// of scores, one forward and two backward; `kept`: of them, how many go back as matrices.
    fn of(lowering: &Lowering<'_>, d: usize, [met, sides, kept]: [usize; 3]) -> Option<Meeting> {
        let Schedule::Matrices(matrices) = lowering.traits.schedule else { return None };
        let Traits { tuned, workgroup_memory, .. } = &lowering.traits;
        if !lowering.rounds || !matrices.attention {
            return None;
        }
        let lines = Lines::of(matrices, &tuned.attention_matrices, d)?;
        let memory = (*workgroup_memory).min(tuned.attention_matrices.memory);
        let fits = |meeting: &Meeting| {
            let (rows, stride, line) = (lines.count(), lines.padded + 8, meeting.met + 8);
            let halves = (rows * stride).max(met * meeting.met * stride + kept * rows * line);
            2 * halves + 4 * sides * rows * line + 32 <= memory
        };
        [32, 16].map(|met| Meeting { lines, met }).into_iter().find(fits)
    }

    /// Whether sums of keys and of values are made by workgroups of their own: both leave too few
    /// registers.
    fn apart(self) -> bool {
        self.lines.padded > Self::TOGETHER
    }
}

impl Kernel {
    /// The same by matrices: its name, parameters, lines of a workgroup, and workgroups for a head.
    fn by_matrices(
        &self,
        attention: &Attention,
        lowering: &Lowering<'_>,
        d: usize,
    ) -> Option<(&'static str, Params, usize, usize)> {
        let causal = attention.causal;
        let (name, met, work) = match self.name {
            "attention_rows" => ("attention_rows_matrices", "keys", [1, 1, 0]),
            "attention_queries_gradient" => {
                ("attention_queries_gradient_matrices", "keys", [2, 2, 1])
            }
            _ => ("attention_keys_values_gradient_matrices", "queries", [2, 2, 2]),
        };
        let meeting = Meeting::of(lowering, d, work)?;
        let mut params = meeting.lines.params();
        params.extend([("causal", Value::from(causal)), (met, Value::from(meeting.met))]);
        let mut heads = 1;
        if met == "queries" {
            params.insert("apart", Value::from(meeting.apart()));
            heads += usize::from(meeting.apart());
        }
        Some((name, params, meeting.lines.count(), heads))
    }

    fn dispatch(
        &self,
        attention: &Attention,
        lowering: &mut Lowering<'_>,
        more: Vec<(&'static str, Uniform)>,
        bindings: Vec<(&'static str, BufferView)>,
    ) {
        let (q, k) = (lowering.input_shape(0).clone(), lowering.input_shape(1).clone());
        let Extents { tokens, keys, channels, d, share } = Extents::of(attention, &q, &k);
        let vector = vector_width(&[d]);
        let [each, entries] = self.each;
        let Sharing { held, part, lanes, per_lane, block, tile } =
            Sharing::of(&lowering.traits.tuned.attention_gradient, d, self.met);
        let part = if self.parts { part } else { d };
        let mut params: Params = [
            ("d", Value::from(d)),
            ("block", Value::from(block)),
            ("vector", Value::from(vector)),
            ("lanes", Value::from(lanes)),
            ("per_lane", Value::from(per_lane)),
            ("causal", Value::from(attention.causal)),
            ("held", Value::from(held)),
            ("tile", Value::from(tile)),
        ]
        .into();
        if self.parts {
            params.insert("part", Value::from(part));
        }
        let mut uniforms: Vec<(&'static str, Uniform)> = vec![
            ("tokens", tokens.into()),
            ("keys", keys.into()),
            ("channels", (channels / vector).into()),
            ("share", share.into()),
            ("heads", attention.heads.into()),
        ];
        uniforms.extend(more);
        let mut work = Work {
            kernel: self.name,
            params,
            uniforms,
            grid: [each.div_ceil(lanes * per_lane), attention.heads * d.div_ceil(part), entries],
            bindings,
            flops: (self.flops * q[0] * tokens * keys * channels) as u64,
        };
        if let Some((kernel, params, rows, heads)) = self.by_matrices(attention, lowering, d) {
            // Heads have a multiple of 4 channels: these kernels count vectors, too.
            (work.kernel, work.params) = (kernel, params);
            work.grid = [each.div_ceil(rows), attention.heads * heads, entries];
        }
        lowering.dispatch(work, false);
    }
}

/// The inputs and the output of a step by their kernel's names.
fn bound<const N: usize>(
    lowering: &Lowering<'_>,
    inputs: [&'static str; N],
    output: &'static str,
) -> Vec<(&'static str, BufferView)> {
    let inputs = inputs.into_iter().enumerate().map(|(i, name)| (name, lowering.input(i)));
    inputs.chain([(output, lowering.output())]).collect()
}

impl Lower for AttentionRows {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let q = lowering.shape();
        let each = [q[1], q[0]];
        let kernel = Kernel { name: "attention_rows", each, met: 1, parts: false, flops: 2 };
        let bindings = bound(lowering, ["q", "k", "y", "dy"], "rows");
        // Devices compute 2^x, not e^x.
        let scale = self.0.scale * std::f32::consts::LOG2_E;
        kernel.dispatch(&self.0, lowering, vec![("scale", scale.into())], bindings);
    }
}

impl Lower for AttentionQueries {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let q = lowering.shape();
        let each = [q[1], q[0]];
        let kernel =
            Kernel { name: "attention_queries_gradient", each, met: 2, parts: true, flops: 6 };
        let bindings = bound(lowering, ["q", "k", "v", "dy", "rows"], "y");
        kernel.dispatch(&self.0, lowering, vec![("scale", self.0.scale.into())], bindings);
    }
}

impl Lower for AttentionKeysValues {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let k = lowering.input_shape(1);
        let (each, entries) = ([k[1], k[0]], k[0]);
        let kernel =
            Kernel { name: "attention_keys_values_gradient", each, met: 2, parts: true, flops: 8 };
        let bindings = bound(lowering, ["q", "k", "v", "dy", "rows"], "y");
        let more = vec![("entries", entries.into()), ("scale", self.0.scale.into())];
        kernel.dispatch(&self.0, lowering, more, bindings);
    }
}
