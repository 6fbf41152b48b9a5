//! How [`conv2d_transposed`](crate::graph::ops) runs on a graphics device.

use super::matmul;
use super::matmul::{Geometry, Window, lower_matmul};
use crate::backend::wgpu::Traits;
use crate::backend::wgpu::layout::Layout;
use crate::backend::wgpu::lowering::{Lower, Lowering};
use crate::graph::ops::conv2d_transposed::{Conv2dTransposed, windows};
use crate::graph::{Fold, Shape};

impl Lower for Conv2dTransposed {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Transposed { stride: self.stride } } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LoraAndElementwise
    }

    fn scratch(&self, inputs: &[&Shape], output: &Shape, traits: &Traits) -> Option<usize> {
        let w = inputs.get(1)?;
        let taps = windows([w[2], w[3]], self.stride).iter().product();
        matmul::scratch(traits, [output.rows(), taps, w[0], output.channels()])
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (x, w, y) = (
            lowering.input_shape(0).clone(),
            lowering.input_shape(1).clone(),
            lowering.shape().clone(),
        );
        let kernel = windows([w[2], w[3]], self.stride);
        let window = Window { stride: 1, kernel, from: [x[1], x[2]], to: [y[1], y[2]] };
        lower_matmul(lowering, &Geometry { rows: y.rows(), taps: Some(window) });
    }
}
