//! How [`embedding`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::layout::Layout;
use crate::backend::cpu::task::Task;
use crate::graph::ops::embedding::{Embedding, EmbeddingGradient};
use cpu_kernels::embedding::{embedding, embedding_gradient};
use cpu_kernels::weights::Stored;

impl Compute for Embedding {
    fn layout(&self, index: usize) -> Layout {
        if index == 0 { Layout::Rows } else { Layout::Plain }
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, channels, table) = (step.level, step.shape().channels(), step.table(0));
        step.task(move |x, _, y, _| {
            let table = table.as_ref().map_or(Stored::F32(x.get(0)), |table| table.stored());
            embedding(level, table, x.get(2), x.ids(1), channels, y);
        })
    }
}

impl Compute for EmbeddingGradient {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (first, clamped, channels) = (self.first, self.clamped, step.shape().channels());
        step.task(move |x, _, y, _| {
            embedding_gradient(x.ids(0), x.get(1), channels, first, clamped, y)
        })
    }
}
