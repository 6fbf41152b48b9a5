//! How [`geglu`](crate::graph::ops) runs on a graphics device.

use super::vector_width;
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work, spread};
use crate::graph::Fold;
use crate::graph::ops::geglu::{Geglu, GegluGradient};

impl Lower for Geglu {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let shape = lowering.shape().clone();
        let vector = vector_width(&[shape.channels()]);
        let channels = shape.channels() / vector;
        let work = Work {
            kernel: "geglu",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![("rows", shape.rows().into()), ("channels", channels.into())],
            grid: spread((shape.rows() * channels).div_ceil(64)),
            bindings: vec![("x", lowering.input(0)), ("y", lowering.output())],
            flops: 10 * shape.elements() as u64,
        };
        lowering.dispatch(work, true);
    }
}

impl Lower for GegluGradient {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let shape = lowering.input_shape(1).clone();
        let vector = vector_width(&[shape.channels()]);
        let channels = shape.channels() / vector;
        let work = Work {
            kernel: "geglu_gradient",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![("rows", shape.rows().into()), ("channels", channels.into())],
            grid: spread((shape.rows() * channels).div_ceil(64)),
            bindings: vec![
                ("x", lowering.input(0)),
                ("dy", lowering.input(1)),
                ("y", lowering.output()),
            ],
            flops: 24 * shape.elements() as u64,
        };
        lowering.dispatch(work, false);
    }
}
