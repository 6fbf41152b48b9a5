//! How [`linear`](crate::graph::ops) runs on a graphics device.

use super::product;
use super::product::{Geometry, lower_product};
use crate::backend::wgpu::Traits;
use crate::backend::wgpu::layout::Layout;
use crate::backend::wgpu::lower::{Lower, Lowering};
use crate::graph::ops::linear::Linear;
use crate::graph::{Fold, Shape};

impl Lower for Linear {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Panels } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LowRankAndStages
    }

    fn scratch(&self, inputs: &[&Shape], output: &Shape, traits: &Traits) -> Option<usize> {
        let w = inputs.get(1).filter(|_| !self.whole)?;
        product::scratch(traits, [output.rows(), 1, w[1], w[0]])
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let rows = lowering.shape().rows();
        lower_product(lowering, &Geometry { rows, taps: None });
    }
}
