//! How [`group_norm`](crate::graph::ops) runs on a graphics device.

use super::{padded_grid, vector_width};
use crate::backend::wgpu::lowering::{BufferView, Lower, Lowering, Work, spread};
use crate::backend::wgpu::tuned::GroupNormSizes;
use crate::backend::wgpu::{Params, Traits, Value};
use crate::graph::ops::group_norm::{GroupNorm, GroupNormStatistics};
use crate::graph::{Fold, Shape};

/// Parts into which a batch entry's rows are cut.
pub(super) fn chunks(sizes: &GroupNormSizes, x: &Shape) -> usize {
    (x.rows() / x[0]).div_ceil(sizes.shortest_chunk).min(sizes.most_chunks)
}

impl Lower for GroupNormStatistics {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        let x = inputs[0];
        Some(x[0] * chunks(&traits.tuned.group_norm, x) * x.channels() * 2)
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let x = lowering.input_shape(0).clone();
        let (batch, rows, channels) = (x[0], x.rows() / x[0], x.channels());
        if let Some((totals, chunks)) = lowering.totals() {
            return self.combine(lowering, totals, chunks);
        }
        let chunks = chunks(&lowering.traits.tuned.group_norm, &x);
        let vector = vector_width(&[channels]);
        let partial = Work {
            kernel: "group_norm_partial",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![
                ("batch", batch.into()),
                ("rows", rows.into()),
                ("channels", (channels / vector).into()),
                ("chunks", chunks.into()),
            ],
            grid: spread((batch * chunks * channels / vector).div_ceil(64)),
            bindings: vec![("x", lowering.input(0)), ("partial", lowering.scratch())],
            flops: 3 * x.elements() as u64,
        };
        lowering.dispatch(partial, false);
        let partial = lowering.scratch();
        self.combine(lowering, partial, chunks);
    }
}

impl GroupNormStatistics {
    /// Statistics from those of chunks.
    fn combine(&self, lowering: &mut Lowering<'_>, partial: BufferView, chunks: usize) {
        let x = lowering.input_shape(0).clone();
        let (batch, rows, channels) = (x[0], x.rows() / x[0], x.channels());
        // Large maps have many chunks to add up.
        let lanes = if chunks * channels / self.groups > 1024 { 64 } else { 16 };
        let combine = Work {
            kernel: "group_norm_statistics",
            params: [("lanes", Value::from(lanes))].into(),
            uniforms: vec![
                ("groups", self.groups.into()),
                ("rows", rows.into()),
                ("channels", channels.into()),
                ("chunks", chunks.into()),
                ("epsilon", self.epsilon.into()),
            ],
            grid: [self.groups, batch, 1],
            bindings: vec![("partial", partial), ("y", lowering.output())],
            flops: 0,
        };
        lowering.dispatch(combine, false);
    }
}

impl Lower for GroupNorm {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn scratch(&self, inputs: &[&Shape], _output: &Shape, _traits: &Traits) -> Option<usize> {
        Some(inputs[0][0] * inputs[0].channels() * 2)
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let shape = lowering.shape().clone();
        let (batch, channels, groups) = (shape[0], shape.channels(), lowering.input_shape(1)[1]);
        let affine = Work {
            kernel: "group_norm_affine",
            params: Params::new(),
            uniforms: vec![
                ("batch", batch.into()),
                ("channels", channels.into()),
                ("groups", groups.into()),
            ],
            grid: spread((batch * channels).div_ceil(64)),
            bindings: vec![
                ("statistics", lowering.input(1)),
                ("weight", lowering.input(2)),
                ("bias", lowering.input(3)),
                ("affine", lowering.scratch()),
            ],
            flops: 0,
        };
        lowering.dispatch(affine, false);
        let vector = vector_width(&[channels]);
        let mut work = Work {
            kernel: "group_norm",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![("rows_per_entry", (shape.rows() / batch).into())],
            grid: [0; 3],
            bindings: vec![
                ("x", lowering.input(0)),
                ("affine", lowering.scratch()),
                ("y", lowering.output()),
            ],
            flops: 4 * shape.elements() as u64,
        };
        padded_grid(&shape, lowering.step.padding, vector, &mut work);
        lowering.dispatch(work, true);
    }
}
