//! How [`lora_down`](crate::graph::ops) runs on the processor.

use crate::backend::cpu::compute::{Compute, StepBuilder};
use crate::backend::cpu::task::Task;
use crate::graph::ops::lora_down::LoraDown;
use crate::graph::{Fold, Shape};
use cpu_kernels::lora_down::{
    Lies, conv2d_scratch_elements, lora_down, lora_down_conv2d, scratch_elements,
};

impl Compute for LoraDown {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn scratch(&self, inputs: &[&Shape], output: &Shape) -> Option<usize> {
        let (into, out, w) = (inputs.first()?.channels(), output.channels(), inputs.get(1)?);
        Some(match self {
            LoraDown::Rows => scratch_elements(Lies::Rows, into, out),
            LoraDown::Columns => scratch_elements(Lies::Columns, into, out),
            LoraDown::Window { .. } => conv2d_scratch_elements(into, out, [w[2], w[3]]),
        })
    }

    fn compile(&self, step: StepBuilder<'_>) -> Task {
        let (level, shape, w) = (step.level, step.input_shape(0), step.input_shape(1));
        let matrix = [shape.channels(), step.shape().channels()];
        let lies = match *self {
            LoraDown::Rows => Lies::Rows,
            LoraDown::Columns => Lies::Columns,
            LoraDown::Window { stride } => {
                let (extents, window) = ([shape[0], shape[1], shape[2]], [w[2], w[3]]);
                return step.task(move |x, epilogue, y, scratch| {
                    lora_down_conv2d(
                        level,
                        x.get(0),
                        extents,
                        x.get(1),
                        matrix,
                        window,
                        stride,
                        epilogue,
                        y,
                        scratch,
                    );
                });
            }
        };
        step.task(move |x, epilogue, y, scratch| {
            lora_down(level, x.get(0), x.get(1), lies, matrix, epilogue, y, scratch);
        })
    }
}
