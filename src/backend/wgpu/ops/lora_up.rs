//! How [`widen`](crate::graph::ops) runs on a graphics device.

use super::matmul::without_epilogue;
use super::vector_width;
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lower::{Lower, Lowering, ROW_OF_WORKGROUPS, Work, add_lora};
use crate::graph::Fold;
use crate::graph::ops::lora_up::LoraUp;

impl Lower for LoraUp {
    fn folds(&self) -> Fold {
        Fold::Elementwise
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let rank = lowering.input_shape(usize::from(self.based)).channels();
        let mut work = lora_up_work(lowering, self.based);
        if self.based {
            // The product itself is the step's first entry.
            work.bindings.push(("x", lowering.input(0)));
        } else {
            let [hidden, up] = [0, 1].map(|i| lowering.input(i));
            let shape = lowering.shape();
            work.flops = 2 * (shape.elements() * rank) as u64;
            add_lora(&mut work, hidden, up, self.transposed, [rank, shape.channels()]);
        }
        lowering.dispatch(work, true);
    }
}

/// A dispatch of the kernel that stores a low-rank product of the shape of the step's result; the
/// product itself is yet to be said.
fn lora_up_work<'a>(lowering: &Lowering<'_>, based: bool) -> Work<'a> {
    const TILE: usize = 4;
    const LANES: usize = 16;
    let (rows, channels) = (lowering.shape().rows(), lowering.shape().channels());
    let vector = vector_width(&[channels]);
    let tiles = rows.div_ceil(TILE);
    Work {
        kernel: "lora_up",
        params: [
            ("based", Value::from(based)),
            ("vector_out", Value::from(vector)),
            ("lanes", Value::from(LANES)),
            ("tile", Value::from(TILE)),
        ]
        .into(),
        uniforms: vec![("rows", rows.into()), ("channels", (channels / vector).into())],
        grid: [
            channels.div_ceil(4).div_ceil(LANES),
            tiles.min(ROW_OF_WORKGROUPS),
            tiles.div_ceil(ROW_OF_WORKGROUPS),
        ],
        bindings: vec![("y", lowering.output())],
        flops: 0,
    }
}

/// Stores the step's low-rank update alone, for a kernel that adds to what is there.
pub(super) fn lower_update(lowering: &mut Lowering<'_>) {
    let mut work = lora_up_work(lowering, false);
    lowering.add_update(&mut work);
    work.params.extend(without_epilogue());
    lowering.dispatch(work, false);
}
