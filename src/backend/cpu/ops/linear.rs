//! How [`linear`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::layout::Layout;
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::linear::Linear;
use cpu_kernels::matmul::linear;

/// Input 0 times the weight that is input 1. Each sum is made in one order, whatever the number of
/// rows.
pub(super) fn multiply(step: StepBuilder<'_>) -> Task {
    let (level, weights) = (step.level, step.matmul_weight(1));
    step.task(move |x, epilogue, y, _| linear(level, x.get(0), &weights, epilogue, y))
}

impl Compute for Linear {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Matmul } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LoraAndElementwise
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        multiply(step)
    }
}
