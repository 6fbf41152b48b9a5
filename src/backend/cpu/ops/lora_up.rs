//! How [`lora_up`](crate::graph::ops) runs on the processor.

use super::elementwise;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Fold;
use crate::graph::ops::lora_up::LoraUp;
use cpu_kernels::elementwise::of_zeros;

impl Compute for LoraUp {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn compile(&self, mut step: StepBuilder<'_>) -> Task {
        if self.based {
            // The update itself is the first entry of the step's epilogue.
            return elementwise(step);
        }
        step.add_lora(0, 1, self.transposed);
        let (level, channels) = (step.level, step.shape().channels());
        step.task(move |_, epilogue, y, _| of_zeros(level, channels, epilogue, y))
    }
}
