//! How [`conv2d`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::layout::Layout;
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::conv2d::Conv2d;
use cpu_kernels::matmul::conv2d;

/// A convolution of input 0 by the weight that is input 1.
pub(super) fn convolve(step: StepBuilder<'_>, stride: usize) -> Task {
    let (level, shape, weights) = (step.level, step.input_shape(0), step.matmul_weight(1));
    let extents = [shape[0], shape[1], shape[2]];
    step.task(move |x, epilogue, y, _| {
        conv2d(level, x.get(0), extents, &weights, stride, epilogue, y)
    })
}

impl Compute for Conv2d {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Matmul } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LoraAndElementwise
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        convolve(step, self.stride)
    }
}
