//! How [`attention_gradient`](crate::graph::ops) runs on a graphics device.

use super::attention::Sharing;
use super::vector_width;
use crate::backend::wgpu::lowering::{BufferView, Lower, Lowering, Work};
use crate::backend::wgpu::{Params, Uniform, Value};
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

impl Kernel {
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
        let work = Work {
            kernel: self.name,
            params,
            uniforms,
            grid: [each.div_ceil(lanes * per_lane), attention.heads * d.div_ceil(part), entries],
            bindings,
            flops: (self.flops * q[0] * tokens * keys * channels) as u64,
        };
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
