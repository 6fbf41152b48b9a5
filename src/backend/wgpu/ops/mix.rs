//! How [`mix`](crate::graph::ops) runs on a graphics device.

use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work, spread};
use crate::graph::ops::mix::Mix;

impl Lower for Mix {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (slots, elements) = (lowering.shape()[0], lowering.shape().elements());
        let work = Work {
            kernel: "mix",
            params: [("slots", Value::from(slots))].into(),
            uniforms: vec![("elements", (elements / slots).into())],
            grid: spread((elements / slots).div_ceil(64)),
            bindings: vec![
                ("state", lowering.input(0)),
                ("a", lowering.input(1)),
                ("b", lowering.input(2)),
                ("matrix", lowering.input(3)),
                ("y", lowering.output()),
            ],
            flops: 2 * (elements * (slots + 2)) as u64,
        };
        lowering.dispatch(work, false);
    }
}
