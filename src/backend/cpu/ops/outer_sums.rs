//! How [`outer_sums`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::outer_sums::OuterSums;
use cpu_kernels::elementwise::copy;
use cpu_kernels::lora_down::outer_sums;

impl Compute for OuterSums {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, n, in_place) = (step.level, step.shape()[1], step.is_in_place());
        step.task(move |x, _, y, _| {
            if !in_place {
                copy(x.get(0), y, 1, y.len(), [0; 2], [0; 2]);
            }
            outer_sums(level, y, x.get(1), n);
        })
    }
}
