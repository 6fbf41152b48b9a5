//! How [`guidance`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::guidance::Guidance;
use cpu_kernels::sampling::guidance;

impl Compute for Guidance {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let scale = self.scale;
        step.task(move |x, _, y, _| guidance(x.get(0), scale, y))
    }
}
