//! How [`layer_norm`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::layer_norm::{LayerNorm, LayerNormGradient};
use cpu_kernels::layer_norm::{layer_norm, layer_norm_gradient};

impl Compute for LayerNorm {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, epsilon) = (step.level, self.epsilon);
        step.task(move |x, epilogue, y, _| {
            layer_norm(level, x.get(0), x.get(1), x.get(2), epsilon, epilogue, y)
        })
    }
}

impl Compute for LayerNormGradient {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, epsilon) = (step.level, self.epsilon);
        step.task(move |x, epilogue, y, _| {
            layer_norm_gradient(level, x.get(0), x.get(1), x.get(2), epsilon, epilogue, y)
        })
    }
}
