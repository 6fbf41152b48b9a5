//! How [`conv2d_transposed`](crate::graph::ops) runs on the processor.

use super::conv2d::convolve;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::layout::Layout;
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::conv2d_transposed::Conv2dTransposed;

impl Compute for Conv2dTransposed {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Transposed { stride: self.stride } } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LoraAndElementwise
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        convolve(step, 1)
    }
}
