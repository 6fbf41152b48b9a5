//! How [`mix`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::mix::Mix;
use cpu_kernels::sampling::mix;

impl Compute for Mix {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let slots = step.shape()[0];
        step.task(move |x, _, y, _| mix(x.get(0), x.get(1), x.get(2), x.get(3), slots, y))
    }
}
