//! How [`upsample`](crate::graph::ops) runs on a graphics device.

use super::{padded_grid, vector_width};
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work};
use crate::graph::Fold;
use crate::graph::ops::upsample::{Upsample, UpsampleGradient};

/// Dispatches a kernel that makes a feature map of one of another size.
fn lower_resized(lowering: &mut Lowering<'_>, kernel: &'static str) {
    let (input, shape) = (lowering.input_shape(0).clone(), lowering.shape().clone());
    let vector = vector_width(&[shape.channels()]);
    let mut work = Work {
        kernel,
        params: [("vector", Value::from(vector))].into(),
        uniforms: vec![("from_height", input[1].into()), ("from_width", input[2].into())],
        grid: [0; 3],
        bindings: vec![("x", lowering.input(0)), ("y", lowering.output())],
        flops: 0,
    };
    let padding = lowering.step.padding.unwrap_or([0; 4]);
    padded_grid(&shape, Some(padding), vector, &mut work);
    lowering.dispatch(work, true);
}

impl Lower for Upsample {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower_resized(lowering, "upsample");
    }
}

impl Lower for UpsampleGradient {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower_resized(lowering, "upsample_gradient");
    }
}
