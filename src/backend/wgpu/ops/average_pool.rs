//! How [`average_pool`](crate::graph::ops) runs on a graphics device.

use super::{padded_grid, vector_width};
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work};
use crate::graph::Fold;
use crate::graph::ops::average_pool::AveragePool;

impl Lower for AveragePool {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (input, shape) = (lowering.input_shape(0).clone(), lowering.shape().clone());
        let vector = vector_width(&[shape.channels()]);
        let mut work = Work {
            kernel: "average_pool",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![("from_height", input[1].into()), ("from_width", input[2].into())],
            grid: [0; 3],
            bindings: vec![("x", lowering.input(0)), ("y", lowering.output())],
            flops: 4 * shape.elements() as u64,
        };
        let padding = lowering.step.padding.unwrap_or([0; 4]);
        padded_grid(&shape, Some(padding), vector, &mut work);
        lowering.dispatch(work, true);
    }
}
