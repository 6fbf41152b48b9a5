//! How [`attention_gradient`](crate::graph::ops) runs on a graphics device.

use super::attention::Sharing;
use super::attention_vectors::Straight;
use super::vector_width;
use crate::backend::wgpu::lower::{BufferView, Lower, Lowering, Work};
use crate::backend::wgpu::{Params, Traits, Uniform, Value};
use crate::graph::Shape;
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
    /// Tensors of which the kernel epilogue a tile.
    pub met: usize,
    /// Vectors of a head's width that an invocation holds for each of its rows, queries or keys.
    pub vectors: usize,
    /// Whether the elements of a head are made in parts where they are many.
    pub parts: bool,
    /// Operations for each pair of a query and a key and each channel.
    pub flops: usize,
}

impl Kernel {
    /// Bytes of workgroup memory that any device has.
    const STAGE: usize = 16384;

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
        let Sharing { held, part, staged, lanes, per_lane } =
            Sharing::of(lowering.traits.schedule, d, each, self.vectors, 8);
        // On software drivers four at a time are a tenth faster than two for hidden heads, and
        // slower for up ones.
        let block = if held && (d > 64 || per_lane > 1) { 2 } else { 4 };
        let part = if self.parts { part } else { d };
        let tile = (Self::STAGE / (self.met * d * 4)).min(32) / block * block;
        let mut params: Params = [
            ("d", Value::from(d)),
            ("block", Value::from(block)),
            ("vector", Value::from(vector)),
            ("lanes", Value::from(lanes)),
            ("per_lane", Value::from(per_lane)),
            ("causal", Value::from(attention.causal)),
            ("held", Value::from(held)),
            ("staged", Value::from(staged)),
            ("tile", Value::from(tile.max(block))),
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

fn straight(attention: &Attention, lowering: &Lowering<'_>) -> Option<Straight> {
    Straight::of(&lowering.traits, attention, lowering.input_shape(0), lowering.input_shape(1))
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
    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        Some(Straight::of(traits, &self.0, inputs.first()?, inputs.get(1)?)?.scratch(1))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        if let Some(straight) = straight(&self.0, lowering) {
            return straight.rows(lowering);
        }
        let q = lowering.shape();
        let each = [q[1], q[0]];
        let kernel =
            Kernel { name: "attention_rows", each, met: 1, vectors: 1, parts: false, flops: 2 };
        let bindings = bound(lowering, ["q", "k", "y", "dy"], "rows");
        // Devices compute 2^x, not e^x.
        let scale = self.0.scale * std::f32::consts::LOG2_E;
        kernel.dispatch(&self.0, lowering, vec![("scale", scale.into())], bindings);
    }
}

impl Lower for AttentionQueries {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        Some(Straight::of(traits, &self.0, inputs.first()?, inputs.get(1)?)?.scratch(2))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        if let Some(straight) = straight(&self.0, lowering) {
            return straight.queries(lowering);
        }
        let q = lowering.shape();
        let each = [q[1], q[0]];
        let kernel = Kernel {
            name: "attention_queries_gradient",
            each,
            met: 2,
            vectors: 3,
            parts: true,
            flops: 6,
        };
        let bindings = bound(lowering, ["q", "k", "v", "dy", "rows"], "y");
        kernel.dispatch(&self.0, lowering, vec![("scale", self.0.scale.into())], bindings);
    }
}

impl Lower for AttentionKeysValues {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        Some(Straight::of_keys(traits, &self.0, inputs.first()?, inputs.get(1)?)?.scratch(2))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let straight = Straight::of_keys(
            &lowering.traits,
            &self.0,
            lowering.input_shape(0),
            lowering.input_shape(1),
        );
        if let Some(straight) = straight {
            return straight.keys_values(lowering);
        }
        let k = lowering.input_shape(1);
        let (each, entries) = ([k[1], k[0]], k[0]);
        let kernel = Kernel {
            name: "attention_keys_values_gradient",
            each,
            met: 2,
            vectors: 4,
            parts: true,
            flops: 8,
        };
        let bindings = bound(lowering, ["q", "k", "v", "dy", "rows"], "y");
        let more = vec![("entries", entries.into()), ("scale", self.0.scale.into())];
        kernel.dispatch(&self.0, lowering, more, bindings);
    }
}
