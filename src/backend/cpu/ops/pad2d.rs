//! How [`pad2d`](crate::graph::ops) runs on the processor.

use super::elementwise_padded;
use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::pad2d::Pad2d;

impl Compute for Pad2d {
    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let padding = step.padded(self.edges);
        elementwise_padded(step, padding)
    }
}
