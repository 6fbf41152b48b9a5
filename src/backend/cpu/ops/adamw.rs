//! How [`adamw`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::adamw::AdamW;
use crate::graph::ops::{Moments, RATES};
use cpu_kernels::elementwise::copy;
use cpu_kernels::optimiser::{self, adamw};

impl Compute for AdamW {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let level = step.level;
        let Moments { beta1, beta2, epsilon } = self.0;
        step.task(move |x, _, y, _| {
            copy(x.get(0), y, 1, y.len(), [0; 2], [0; 2]);
            let mut rates = [0.0; RATES];
            rates.copy_from_slice(x.get(2));
            let moments = optimiser::Moments { beta1, beta2, epsilon };
            adamw(level, y, x.get(1), &rates, x.get(3)[0], moments);
        })
    }
}
