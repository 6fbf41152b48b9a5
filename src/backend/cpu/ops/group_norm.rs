//! How [`group_norm`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::group_norm::{GroupNorm, GroupNormStatistics};
use crate::graph::{Fold, Shape};
use cpu_kernels::group_norm as kernel;

/// What the kernels know of a norm of `x`.
pub(super) fn extents(x: &Shape, groups: usize) -> kernel::GroupNorm {
    kernel::GroupNorm { batch: x[0], rows: x.rows() / x[0].max(1), channels: x.channels(), groups }
}

impl Compute for GroupNormStatistics {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        Some(extents(inputs.first()?, self.groups).scratch_elements())
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents, epsilon) =
            (step.level, extents(step.input_shape(0), self.groups), self.epsilon);
        step.task(move |x, _, y, scratch| {
            kernel::statistics(level, &extents, x.get(0), epsilon, y, scratch)
        })
    }
}

impl Compute for GroupNorm {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, padding) = (step.level, step.padding());
        let extents = extents(step.input_shape(0), step.input_shape(1)[1]);
        step.task(move |x, epilogue, y, _| {
            let padding = padding.as_ref();
            kernel::group_norm(
                level,
                &extents,
                x.get(0),
                x.get(1),
                x.get(2),
                x.get(3),
                padding,
                epilogue,
                y,
            );
        })
    }
}
