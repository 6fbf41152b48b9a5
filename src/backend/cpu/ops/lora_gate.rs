//! How [`lora_gate`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::lora_gate::{LoraGate, Part};
use cpu_kernels::sampling::{GatePart, lora_gate};

impl Compute for LoraGate {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let rows = step.shape().rows();
        let part = |part: &Part| (part.rank, part.factor, part.strength, part.mask);
        let parts: Vec<_> = self.0.iter().map(part).collect();
        step.task(move |x, _, y, _| {
            let parts = parts.iter().map(|&(rank, factor, strength, mask)| GatePart {
                rank,
                factor,
                strength: strength.map_or(1.0, |index| x.get(index)[0]),
                mask: mask.map_or(&[][..], |index| x.get(index)),
            });
            lora_gate(parts, rows, y);
        })
    }
}
