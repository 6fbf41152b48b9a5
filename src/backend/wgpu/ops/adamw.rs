//! How [`adamw`](crate::graph::ops) runs on a graphics device.

use crate::backend::wgpu::Params;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work, spread};
use crate::graph::ops::adamw::AdamW;

impl Lower for AdamW {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let count = lowering.shape()[1];
        let work = Work {
            kernel: "adamw",
            params: Params::new(),
            uniforms: vec![
                ("count", count.into()),
                ("beta1", self.0.beta1.into()),
                ("beta2", self.0.beta2.into()),
                ("epsilon", self.0.epsilon.into()),
            ],
            grid: spread(count.div_ceil(64)),
            bindings: vec![
                ("state", lowering.input(0)),
                ("gradient", lowering.input(1)),
                ("rates", lowering.input(2)),
                ("loss", lowering.input(3)),
                ("y", lowering.output()),
            ],
            flops: 14 * count as u64,
        };
        lowering.dispatch(work, false);
    }
}
