//! How [`linear`](crate::graph::ops) runs on a graphics device.

use super::matmul;
use super::matmul::{Geometry, lower_matmul};
use crate::backend::wgpu::Traits;
use crate::backend::wgpu::layout::Layout;
use crate::backend::wgpu::lowering::{Lower, Lowering};
use crate::graph::ops::linear::Linear;
use crate::graph::{Fold, Shape};

impl Lower for Linear {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Panels } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LoraAndElementwise
    }

    fn scratch(&self, inputs: &[&Shape], output: &Shape, traits: &Traits) -> Option<usize> {
        let w = inputs.get(1).filter(|_| !self.whole)?;
        matmul::scratch(traits, [output.rows(), 1, w[1], w[0]])
    }

    fn totals(&self, inputs: &[&Shape], output: &Shape, traits: &Traits) -> Option<usize> {
        let w = inputs.get(1).filter(|_| !self.whole)?;
        matmul::totals(traits, [output.rows(), 1, w[1], w[0]], output[0])
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let rows = lowering.shape().rows();
        lower_matmul(lowering, &Geometry { rows, taps: None });
    }
}
