//! How [`group_norm_gradient`](crate::graph::ops) runs on a graphics device.

use super::group_norm::chunks;
use super::{padded_grid, vector_width};
use crate::backend::wgpu::lowering::{Lower, Lowering, Work, spread};
use crate::backend::wgpu::{Params, Traits, Value};
use crate::graph::ops::group_norm_gradient::{GroupNormGradient, GroupNormMeans};
use crate::graph::{Fold, Shape};

impl Lower for GroupNormMeans {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape, traits: &Traits) -> Option<usize> {
        let x = inputs[0];
        Some(x[0] * chunks(&traits.tuned.group_norm, x) * x.channels() * 2)
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let x = lowering.input_shape(0).clone();
        let (batch, rows, channels, groups) =
            (x[0], x.rows() / x[0], x.channels(), lowering.shape()[1]);
        let chunks = chunks(&lowering.traits.tuned.group_norm, &x);
        let vector = vector_width(&[channels]);
        let partial = Work {
            kernel: "group_norm_means_partial",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![
                ("batch", batch.into()),
                ("rows", rows.into()),
                ("channels", (channels / vector).into()),
                ("chunks", chunks.into()),
                ("groups", groups.into()),
            ],
            grid: spread((batch * chunks * channels / vector).div_ceil(64)),
            bindings: vec![
                ("x", lowering.input(0)),
                ("statistics", lowering.input(1)),
                ("weight", lowering.input(2)),
                ("dy", lowering.input(3)),
                ("partial", lowering.scratch()),
            ],
            flops: 4 * x.elements() as u64,
        };
        lowering.dispatch(partial, false);
        let combine = Work {
            kernel: "group_norm_means",
            params: Params::new(),
            uniforms: vec![
                ("groups", groups.into()),
                ("rows", rows.into()),
                ("channels", channels.into()),
                ("chunks", chunks.into()),
            ],
            grid: [groups, batch, 1],
            bindings: vec![("partial", lowering.scratch()), ("y", lowering.output())],
            flops: 0,
        };
        lowering.dispatch(combine, false);
    }
}

impl Lower for GroupNormGradient {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn scratch(&self, inputs: &[&Shape], _output: &Shape, _traits: &Traits) -> Option<usize> {
        Some(inputs[0][0] * inputs[0].channels() * 4)
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let shape = lowering.shape().clone();
        let (batch, channels, groups) = (shape[0], shape.channels(), lowering.input_shape(1)[1]);
        let affine = Work {
            kernel: "group_norm_gradient_affine",
            params: Params::new(),
            uniforms: vec![
                ("batch", batch.into()),
                ("channels", channels.into()),
                ("groups", groups.into()),
            ],
            grid: spread((batch * channels).div_ceil(64)),
            bindings: vec![
                ("statistics", lowering.input(1)),
                ("means", lowering.input(4)),
                ("weight", lowering.input(2)),
                ("affine", lowering.scratch()),
            ],
            flops: 0,
        };
        lowering.dispatch(affine, false);
        let vector = vector_width(&[channels]);
        let mut work = Work {
            kernel: "group_norm_gradient",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![("rows_per_entry", (shape.rows() / batch).into())],
            grid: [0; 3],
            bindings: vec![
                ("x", lowering.input(0)),
                ("dy", lowering.input(3)),
                ("affine", lowering.scratch()),
                ("y", lowering.output()),
            ],
            flops: 5 * shape.elements() as u64,
        };
        padded_grid(&shape, lowering.step.padding, vector, &mut work);
        lowering.dispatch(work, true);
    }
}
