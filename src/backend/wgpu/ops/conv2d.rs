//! How [`conv2d`](crate::graph::ops) runs on a graphics device.

use super::matmul;
use super::matmul::{Geometry, Window, lower_matmul};
use crate::backend::wgpu::Traits;
use crate::backend::wgpu::layout::Layout;
use crate::backend::wgpu::lowering::{Lower, Lowering};
use crate::graph::ops::conv2d::Conv2d;
use crate::graph::{Fold, Shape};

impl Lower for Conv2d {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Panels } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LoraAndElementwise
    }

    fn scratch(&self, inputs: &[&Shape], output: &Shape, traits: &Traits) -> Option<usize> {
        let w = inputs.get(1)?;
        matmul::scratch(traits, [output.rows(), w[2] * w[3], w[1], w[0]])
    }

    fn totals(&self, inputs: &[&Shape], output: &Shape, traits: &Traits) -> Option<usize> {
        let w = inputs.get(1)?;
        matmul::totals(traits, [output.rows(), w[2] * w[3], w[1], w[0]], output[0])
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (x, w, y) = (
            lowering.input_shape(0).clone(),
            lowering.input_shape(1).clone(),
            lowering.shape().clone(),
        );
        let window = Window {
            stride: self.stride,
            kernel: [w[2], w[3]],
            from: [x[1], x[2]],
            to: [y[1], y[2]],
        };
        lower_matmul(lowering, &Geometry { rows: y.rows(), taps: Some(window) });
    }
}
