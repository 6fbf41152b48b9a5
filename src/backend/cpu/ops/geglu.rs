//! How [`geglu`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::geglu::{Geglu, GegluGradient};
use cpu_kernels::elementwise::{geglu, geglu_gradient};

impl Compute for Geglu {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, d) = (step.level, step.shape().channels());
        step.task(move |x, epilogue, y, _| geglu(level, x.get(0), d, epilogue, y))
    }
}

impl Compute for GegluGradient {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, d) = (step.level, step.input_shape(1).channels());
        step.task(move |x, _, y, _| geglu_gradient(level, x.get(0), x.get(1), d, y))
    }
}
