//! How [`binary`](crate::graph::ops) runs on the processor.

use super::elementwise;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::binary::Binary;

impl Compute for Binary {
    fn folds(&self) -> Fold {
        Fold::ElementwiseAndPadding
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        elementwise(step)
    }
}
