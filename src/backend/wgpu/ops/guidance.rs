//! How [`guidance`](crate::graph::ops) runs on a graphics device.

use crate::backend::wgpu::Params;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work, spread};
use crate::graph::ops::guidance::Guidance;

impl Lower for Guidance {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let elements = lowering.shape().elements();
        let work = Work {
            kernel: "guidance",
            params: Params::new(),
            uniforms: vec![("elements", elements.into()), ("scale", self.scale.into())],
            grid: spread(elements.div_ceil(64)),
            bindings: vec![("x", lowering.input(0)), ("y", lowering.output())],
            flops: 3 * elements as u64,
        };
        lowering.dispatch(work, false);
    }
}
