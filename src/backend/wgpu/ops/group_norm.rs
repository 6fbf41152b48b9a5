//! How [`group_norm`](crate::graph::ops) runs on a graphics device.

use super::{padded_grid, vector_width};
use crate::backend::wgpu::lower::{Lower, Lowering, Work, spread};
use crate::backend::wgpu::{Params, Schedule, Traits, Value};
use crate::graph::ops::group_norm::{GroupNorm, GroupNormStatistics};
use crate::graph::{Fold, Shape};

/// Parts into which a batch entry's rows are cut, so that even a small picture keeps a device busy.
pub(super) fn chunks(x: &Shape) -> usize {
    (x.rows() / x[0]).div_ceil(64).min(64)
}

/// Vectors that a straight-line workgroup makes.
pub(super) const MOST_VECTORS: usize = 8;
/// In one dimension.
pub(super) const MOST_WORKGROUPS: usize = 65535;

impl Lower for GroupNormStatistics {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape, _traits: &Traits) -> Option<usize> {
        let x = inputs[0];
        Some(x[0] * chunks(x) * x.channels() * 2)
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let x = lowering.input_shape(0).clone();
        let (batch, rows, channels) = (x[0], x.rows() / x[0], x.channels());
        let (chunks, vector) = (chunks(&x), vector_width(&[channels]));
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
        let combine = Work {
            kernel: "group_norm_statistics",
            params: Params::new(),
            uniforms: vec![
                ("groups", self.groups.into()),
                ("rows", rows.into()),
                ("channels", channels.into()),
                ("chunks", chunks.into()),
                ("epsilon", self.epsilon.into()),
            ],
            grid: [self.groups, batch, 1],
            bindings: vec![("partial", lowering.scratch()), ("y", lowering.output())],
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
        let lanes = straight_lanes(lowering, channels);
        let vector = if lanes.is_some() { 1 } else { vector_width(&[channels]) };
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
        let rows = padded_grid(&shape, lowering.step.padding, vector, &mut work);
        if let Some(lanes) = lanes {
            let vectors = (1..=MOST_VECTORS)
                .rev()
                .find(|vectors| channels.is_multiple_of(vectors * lanes))
                .unwrap_or(1);
            work.kernel = "group_norm_vectors";
            work.params.remove("vector");
            work.params.extend([("lanes", Value::from(lanes)), ("columns", Value::from(vectors))]);
            work.uniforms.push(("opaque", 0usize.into()));
            let planes = rows.div_ceil(MOST_WORKGROUPS);
            work.grid = [channels / (vectors * lanes), rows.div_ceil(planes.max(1)), planes];
        }
        lowering.dispatch(work, true);
    }
}

/// Invocations of a subgroup, where straight-line code suits.
fn straight_lanes(lowering: &Lowering<'_>, channels: usize) -> Option<usize> {
    let Schedule::Vectors { lanes, least_flops } = lowering.traits.schedule else { return None };
    let elements = lowering.output().slice.size / 4;
    // Compiled once for each kind of epilogue: it must come back, in smaller kernels than products.
    let suits =
        channels.is_multiple_of(lanes) && elements < 1 << 28 && least_flops / 100 <= elements;
    suits.then_some(lanes)
}
