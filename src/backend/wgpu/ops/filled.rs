//! How [`filled`](crate::graph::ops) runs on a graphics device.

use crate::backend::wgpu::Params;
use crate::backend::wgpu::lowering::{BufferView, Lower, Lowering, Work, spread};
use crate::graph::ops::filled::Filled;

/// Writes `value` to the `elements` of `to`.
pub(super) fn lower_filled(
    lowering: &mut Lowering<'_>,
    to: BufferView,
    elements: usize,
    value: f32,
) {
    let work = Work {
        kernel: "filled",
        params: Params::new(),
        uniforms: vec![("elements", elements.into()), ("value", value.into())],
        grid: spread(elements.div_ceil(64)),
        bindings: vec![("y", to)],
        flops: 0,
    };
    lowering.dispatch(work, false);
}

impl Lower for Filled {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower_filled(lowering, lowering.output(), self.shape.elements(), self.value);
    }
}
