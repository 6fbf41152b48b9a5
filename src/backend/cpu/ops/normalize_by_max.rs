//! How [`normalize_by_max`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::normalize_by_max::{NormalizeByMax, NormalizeByMaxGradient};
use cpu_kernels::reduce::{normalize_by_max, normalize_by_max_gradient};

impl Compute for NormalizeByMax {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        step.task(|x, _, y, _| normalize_by_max(x.get(0), y))
    }
}

impl Compute for NormalizeByMaxGradient {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        step.task(|x, _, y, _| normalize_by_max_gradient(x.get(0), x.get(1), y))
    }
}
