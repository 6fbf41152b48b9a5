//! How [`lora_gate`](crate::graph::ops) runs on a graphics device.

use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work, spread};
use crate::graph::ops::lora_gate::LoraGate;

impl Lower for LoraGate {
    /// A dispatch for each part, into its columns.
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (rows, channels) = (lowering.shape().rows(), lowering.shape().channels());
        let mut first = 0;
        for part in &self.0 {
            let mut work = Work {
                kernel: "lora_gate",
                params: [
                    ("strength", Value::from(part.strength.is_some())),
                    ("mask", Value::from(part.mask.is_some())),
                ]
                .into(),
                uniforms: vec![
                    ("rows", rows.into()),
                    ("channels", channels.into()),
                    ("first", first.into()),
                    ("rank", part.rank.into()),
                    ("factor", part.factor.into()),
                ],
                grid: spread((rows * part.rank).div_ceil(64)),
                bindings: vec![("y", lowering.output())],
                flops: 2 * (rows * part.rank) as u64,
            };
            work.bindings.extend(part.strength.map(|i| ("strength", lowering.input(i))));
            if let Some(mask) = part.mask {
                work.uniforms.push(("mask_rows", lowering.input_shape(mask).elements().into()));
                work.bindings.push(("mask", lowering.input(mask)));
            }
            lowering.dispatch(work, false);
            first += part.rank;
        }
    }
}
