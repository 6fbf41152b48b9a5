//! How [`group_norm_gradient`](crate::graph::ops) runs on the processor.

use super::group_norm::extents;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::group_norm_gradient::{GroupNormGradient, GroupNormMeans};
use crate::graph::{Fold, Shape};
use cpu_kernels::group_norm as kernel;

impl Compute for GroupNormMeans {
    fn scratch(&self, inputs: &[&Shape], output: &Shape) -> Option<usize> {
        Some(extents(inputs.first()?, output[1]).scratch_elements())
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) = (step.level, extents(step.input_shape(0), step.shape()[1]));
        step.task(move |x, _, y, scratch| {
            kernel::means(level, &extents, x.get(0), x.get(1), x.get(2), x.get(3), y, scratch);
        })
    }
}

impl Compute for GroupNormGradient {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, padding) = (step.level, step.padding());
        let extents = extents(step.input_shape(0), step.input_shape(1)[1]);
        step.task(move |x, epilogue, y, _| {
            let [statistics, weight, dy, means] = [x.get(1), x.get(2), x.get(3), x.get(4)];
            kernel::gradient(
                level,
                &extents,
                x.get(0),
                statistics,
                weight,
                dy,
                means,
                padding.as_ref(),
                epilogue,
                y,
            );
        })
    }
}
