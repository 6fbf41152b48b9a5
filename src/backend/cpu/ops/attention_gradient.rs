//! How [`attention_gradient`](crate::graph::ops) runs on the processor.

use std::any::Any;

use super::attention::extents;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::attention_gradient::{AttentionKeysValues, AttentionQueries, AttentionRows};
use crate::graph::{Operation, Shape};
use cpu_kernels::attention_gradient as kernel;

impl Compute for AttentionRows {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        Some(kernel::rows_scratch_elements(&extents(&self.0, inputs.first()?, inputs.get(1)?)))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) =
            (step.level, extents(&self.0, step.input_shape(0), step.input_shape(1)));
        let only_deltas = step.is_read_by_joined() && !kernel::wants_totals(&extents);
        if only_deltas {
            return step.task(move |x, _, rows, _| {
                rows.fill(0.0);
                kernel::attention_deltas(level, &extents, x.get(2), x.get(3), rows);
            });
        }
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
    fn joins(&self, before: &dyn Operation) -> bool {
        (before as &dyn Any).is::<AttentionQueries>()
    }

    fn scratch(&self, inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        let extents = extents(&self.0, inputs.first()?, inputs.get(1)?);
        let alone = kernel::keys_values_scratch_elements(&extents);
        Some(alone.max(kernel::gradients_scratch_elements(&extents)))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) =
            (step.level, extents(&self.0, step.input_shape(0), step.input_shape(1)));
        if step.is_joined() {
            return step.task(move |x, _, dkv, scratch| {
                let [q, k, v, dy, rows] = [0, 1, 2, 3, 4].map(|input| x.get(input));
                // SAFETY: asked for once.
                let dq = unsafe { x.joined() };
                kernel::attention_gradients(level, &extents, q, k, v, dy, rows, dq, dkv, scratch);
            });
        }
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
