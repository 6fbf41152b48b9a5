//! How [`filled`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::filled::Filled;
use cpu_kernels::elementwise::filled;

impl Compute for Filled {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let value = self.value;
        step.task(move |_, _, y, _| filled(y, value))
    }
}
