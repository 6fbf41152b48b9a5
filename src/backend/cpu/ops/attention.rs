//! How [`attention`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Shape;
use crate::graph::ops::attention::Attention;
use cpu_kernels::attention::{self as kernel, attention, scratch_elements};

/// What the kernels know of an attention of these shapes of q and k.
pub(super) fn extents(attention: &Attention, q: &Shape, k: &Shape) -> kernel::Attention {
    kernel::Attention {
        batch: q[0],
        kv_batch: k[0],
        tokens: q[1],
        keys: k[1],
        heads: attention.heads,
        d: q[2] / attention.heads,
        scale: attention.scale,
        causal: attention.causal,
    }
}

impl Compute for Attention {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        Some(scratch_elements(&extents(self, inputs.first()?, inputs.get(1)?)))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, extents) = (step.level, extents(self, step.shape(), step.input_shape(1)));
        let masked = step.inputs() > 3;
        step.task(move |x, _, y, scratch| {
            let mask = masked.then(|| x.ids(3));
            attention(level, &extents, x.get(0), x.get(1), x.get(2), mask, y, None, scratch);
        })
    }
}
