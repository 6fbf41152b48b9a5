//! How [`upsample`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::upsample::{Upsample, UpsampleGradient};
use cpu_kernels::resize::{upsample, upsample_gradient};

impl Compute for Upsample {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, padding, shape) = (step.level, step.padding(), step.input_shape(0));
        let (from, to, channels) =
            ([shape[0], shape[1], shape[2]], [self.height, self.width], shape.channels());
        step.task(move |x, epilogue, y, _| {
            upsample(level, x.get(0), from, to, channels, padding.as_ref(), epilogue, y);
        })
    }
}

impl Compute for UpsampleGradient {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let shape = step.input_shape(0);
        let (from, to, channels) =
            ([shape[0], shape[1], shape[2]], [self.height, self.width], shape.channels());
        step.task(move |x, _, y, _| upsample_gradient(x.get(0), from, to, channels, y))
    }
}
