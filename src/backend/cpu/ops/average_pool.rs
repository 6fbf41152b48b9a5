//! How [`average_pool`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::average_pool::AveragePool;
use cpu_kernels::resize::average_pool;

impl Compute for AveragePool {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, padding, shape) = (step.level, step.padding(), step.input_shape(0));
        let (extents, channels) = ([shape[0], shape[1], shape[2]], shape.channels());
        step.task(move |x, epilogue, y, _| {
            average_pool(level, x.get(0), extents, channels, padding.as_ref(), epilogue, y);
        })
    }
}
