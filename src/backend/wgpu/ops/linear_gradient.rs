//! How [`linear_gradient`](crate::graph::ops) runs on a graphics device.

use super::matmul;
use super::matmul::{Geometry, lower_matmul};
use super::weight_gradient;
use crate::backend::wgpu::Traits;
use crate::backend::wgpu::layout::Layout;
use crate::backend::wgpu::lowering::{Lower, Lowering};
use crate::graph::ops::linear_gradient::{LinearTransposed, LinearWeightGradient};
use crate::graph::{Fold, Shape};

impl Lower for LinearTransposed {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Transposed { stride: 1 } } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LoraAndElementwise
    }

    fn scratch(&self, inputs: &[&Shape], output: &Shape, traits: &Traits) -> Option<usize> {
        let w = inputs.get(1)?;
        matmul::scratch(traits, [output.rows(), 1, w[0], output.channels()])
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let rows = lowering.shape().rows();
        lower_matmul(lowering, &Geometry { rows, taps: None });
    }
}

impl Lower for LinearWeightGradient {
    fn scratch(&self, inputs: &[&Shape], output: &Shape, traits: &Traits) -> Option<usize> {
        Some(weight_gradient::scratch(&traits.tuned.weight_gradient, inputs[0].rows(), output))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        weight_gradient::lower(lowering);
    }
}
