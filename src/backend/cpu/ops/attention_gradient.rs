//! How [`attention_gradient`](crate::graph::ops) runs on the processor.

use super::attention::extents;
use crate::backend::cpu::compute::{Compute, StepBuilder, Task};
use crate::graph::Shape;
use crate::graph::ops::attention_gradient::{AttentionKeysValues, AttentionQueries, AttentionRows};
use cpu_kernels::attention_gradient as kernel;

impl Compute for AttentionRows {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        Some(kernel::rows_scratch_elements(&extents(&self.0, inputs.first()?, inputs.get(1)?)))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) =
            (step.level, extents(&self.0, step.input_shape(0), step.input_shape(1)));
        step.task(move |x, _, y, scratch| {
            kernel::attention_rows(
                level,
                &extents,
                x.get(0),
                x.get(1),
                x.get(2),
                x.get(3),
                y,
                scratch,
            );
        })
    }
}

impl Compute for AttentionQueries {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        Some(kernel::queries_scratch_elements(&extents(&self.0, inputs.first()?, inputs.get(1)?)))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) =
            (step.level, extents(&self.0, step.input_shape(0), step.input_shape(1)));
        step.task(move |x, _, y, scratch| {
            kernel::attention_queries(
                level,
                &extents,
                x.get(0),
                x.get(1),
                x.get(2),
                x.get(3),
                x.get(4),
                y,
                scratch,
            );
        })
    }
}

impl Compute for AttentionKeysValues {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        Some(kernel::keys_values_scratch_elements(&extents(
            &self.0,
            inputs.first()?,
            inputs.get(1)?,
        )))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) =
            (step.level, extents(&self.0, step.input_shape(0), step.input_shape(1)));
        step.task(move |x, _, y, scratch| {
            kernel::attention_keys_values(
                level,
                &extents,
                x.get(0),
                x.get(1),
                x.get(2),
                x.get(3),
                x.get(4),
                y,
                scratch,
            );
        })
    }
}
