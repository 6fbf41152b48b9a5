//! How [`widen`](crate::graph::ops) runs on a graphics device.

use super::vector_width;
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, ROW_OF_WORKGROUPS, Work, add_lora};
use crate::backend::wgpu::tuned::LoraUpSizes;
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
    let LoraUpSizes { lanes, rows: tile } = lowering.traits.tuned.lora_up;
    let (rows, channels) = (lowering.shape().rows(), lowering.shape().channels());
    let vector = vector_width(&[channels]);
    let tiles = rows.div_ceil(tile);
    Work {
        kernel: "lora_up",
        params: [
            ("based", Value::from(based)),
            ("vector_out", Value::from(vector)),
            ("lanes", Value::from(lanes)),
            ("tile", Value::from(tile)),
        ]
        .into(),
        uniforms: vec![("rows", rows.into()), ("channels", (channels / vector).into())],
        grid: [
            channels.div_ceil(4).div_ceil(lanes),
            tiles.min(ROW_OF_WORKGROUPS),
            tiles.div_ceil(ROW_OF_WORKGROUPS),
        ],
        bindings: vec![("y", lowering.output())],
        flops: 0,
    }
}
