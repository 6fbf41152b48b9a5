//! How [`linear_gradient`](crate::graph::ops) runs on the processor.

use super::linear::multiply;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::layout::Layout;
use crate::backend::cpu::task::Task;
use crate::graph::ops::linear_gradient::{LinearTransposed, LinearWeightGradient};
use crate::graph::{Fold, Shape};
use cpu_kernels::lora_down::{weight_gradient, weight_gradient_scratch_elements};

impl Compute for LinearTransposed {
    fn layout(&self, index: usize) -> Layout {
        if index == 1 { Layout::Transposed { stride: 1 } } else { Layout::Plain }
    }

    fn folds(&self) -> Fold {
        Fold::LoraAndElementwise
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        multiply(step)
    }
}

impl Compute for LinearWeightGradient {
    fn scratch(&self, inputs: &[&Shape], output: &Shape) -> Option<usize> {
        Some(weight_gradient_scratch_elements(inputs.first()?.rows(), output[0], output[1]))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) = (step.level, [step.shape()[0], step.shape()[1]]);
        step.task(move |x, _, y, scratch| {
            weight_gradient(level, x.get(0), x.get(1), extents, y, scratch)
        })
    }
}
