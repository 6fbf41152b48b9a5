//! How [`layer_norm`](crate::graph::ops) runs on a graphics device.

use super::vector_width;
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{BufferView, Lower, Lowering, Work, spread};
use crate::graph::Fold;
use crate::graph::ops::layer_norm::{LayerNorm, LayerNormGradient};

/// Dispatches a kernel that takes a row to a workgroup, and `flops` operations to an element.
fn lower_rows(
    lowering: &mut Lowering<'_>,
    kernel: &'static str,
    epsilon: f32,
    inputs: [(&'static str, BufferView); 3],
    flops: u64,
) {
    let shape = lowering.shape().clone();
    let vector = vector_width(&[shape.channels()]);
    let mut bindings = inputs.to_vec();
    bindings.push(("y", lowering.output()));
    let work = Work {
        kernel,
        params: [("vector", Value::from(vector))].into(),
        uniforms: vec![
            ("rows", shape.rows().into()),
            ("channels", (shape.channels() / vector).into()),
            ("epsilon", epsilon.into()),
        ],
        grid: spread(shape.rows()),
        bindings,
        flops: flops * shape.elements() as u64,
    };
    lowering.dispatch(work, true);
}

impl Lower for LayerNorm {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let inputs =
            [("x", lowering.input(0)), ("weight", lowering.input(1)), ("bias", lowering.input(2))];
        lower_rows(lowering, "layer_norm", self.epsilon, inputs, 7);
    }
}

impl Lower for LayerNormGradient {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let inputs =
            [("x", lowering.input(0)), ("weight", lowering.input(1)), ("dy", lowering.input(2))];
        lower_rows(lowering, "layer_norm_gradient", self.epsilon, inputs, 12);
    }
}
