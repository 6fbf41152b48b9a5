//! How [`concat`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::concat::Concat;
use cpu_kernels::elementwise::copy;

impl Compute for Concat {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let to: usize = step.shape()[self.axis..].iter().product();
        let widths: Vec<usize> =
            (0..step.inputs()).map(|i| step.input_shape(i)[self.axis..].iter().product()).collect();
        step.task(move |x, _, y, _| {
            let mut at = 0;
            for (index, &width) in widths.iter().enumerate() {
                let x = x.get(index);
                copy(x, y, x.len() / width, width, [width, 0], [to, at]);
                at += width;
            }
        })
    }
}
