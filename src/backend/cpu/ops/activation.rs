//! How [`activation`](crate::graph::ops) runs on the processor.

use super::elementwise;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::activation::{Activation, ActivationGradient};

impl Compute for Activation {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        elementwise(step)
    }
}

impl Compute for ActivationGradient {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        elementwise(step)
    }
}
