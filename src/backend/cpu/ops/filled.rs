//! How [`filled`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder, Task};
use crate::backend::cpu::kernels::elementwise::filled;
use crate::graph::ops::filled::Filled;

impl Compute for Filled {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let value = self.value;
        step.task(move |_, _, y, _| filled(y, value))
    }
}
