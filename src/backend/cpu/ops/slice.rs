//! How [`slice`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::slice::Slice;
use cpu_kernels::elementwise::copy;

impl Compute for Slice {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let inner: usize = step.shape()[self.axis + 1..].iter().product();
        let (from, to) = (step.input_shape(0)[self.axis] * inner, self.length * inner);
        let start = self.start * inner;
        step.task(move |x, _, y, _| {
            copy(x.get(0), y, y.len() / to.max(1), to, [from, start], [to, 0])
        })
    }
}
