//! How [`guidance`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder, Task};
use crate::backend::cpu::kernels::sampling::guidance;
use crate::graph::ops::guidance::Guidance;

impl Compute for Guidance {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let scale = self.scale;
        step.task(move |x, _, y, _| guidance(x.get(0), scale, y))
    }
}
