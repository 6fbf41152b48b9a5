//! How [`regional_attention`](crate::graph::ops) runs on the processor.

use super::attention;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::Shape;
use crate::graph::ops::attention::Attention;
use crate::graph::ops::regional_attention::RegionalAttention;
use cpu_kernels::attention as kernel;
use cpu_kernels::regional_attention::{Regions, regional_attention, scratch_elements};

impl RegionalAttention {
    fn extents(&self, q: &Shape, k: &Shape) -> kernel::Attention {
        let plain =
            Attention { heads: self.heads, scale: self.scale, causal: false, to_prompt: true };
        attention::extents(&plain, q, k)
    }

    /// Keys of each prompt.
    fn lengths(&self) -> Vec<usize> {
        self.reach.iter().map(|prompt| prompt.keys).collect()
    }
}

impl Compute for RegionalAttention {
    fn scratch(&self, inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        Some(scratch_elements(&self.extents(inputs.first()?, inputs.get(1)?), &self.lengths()))
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, lengths) = (step.level, self.lengths());
        let extents = self.extents(step.shape(), step.input_shape(1));
        step.task(move |x, _, y, scratch| {
            let regions =
                Regions { order: x.ids(3), weights: x.get(4), spans: x.ids(5), lengths: &lengths };
            regional_attention(level, &extents, x.get(0), x.get(1), x.get(2), &regions, y, scratch);
        })
    }
}
