//! How [`sum_to`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Shape;
use crate::graph::ops::sum_to::{BroadcastTo, Extents, SumTo};
use cpu_kernels::elementwise::broadcast;
use cpu_kernels::reduce::{sum, sum_scratch_elements};

fn extents(large: &Shape, small: &Shape) -> [usize; 3] {
    let Extents { outer, middle, inner } = Extents::of(large, small);
    [outer, middle, inner]
}

impl Compute for SumTo {
    fn scratch(&self, inputs: &[&Shape], output: &Shape) -> Option<usize> {
        Some(sum_scratch_elements(extents(inputs.first()?, output)))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) = (step.level, extents(step.input_shape(0), step.shape()));
        step.task(move |x, _, y, scratch| sum(level, x.get(0), extents, y, scratch))
    }
}

impl Compute for BroadcastTo {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let extents = extents(step.shape(), step.input_shape(0));
        step.task(move |x, _, y, _| broadcast(x.get(0), extents, y))
    }
}
