//! How [`normalize_by_max`](crate::graph::ops) runs on a graphics device.

use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work};
use crate::graph::ops::normalize_by_max::{NormalizeByMax, NormalizeByMaxGradient};

impl Lower for NormalizeByMax {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower(lowering, false);
    }
}

impl Lower for NormalizeByMaxGradient {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower(lowering, true);
    }
}

/// One workgroup: these are maps of a few thousand places.
fn lower(lowering: &mut Lowering<'_>, backward: bool) {
    let count = lowering.shape().elements();
    let mut bindings = vec![("x", lowering.input(0)), ("y", lowering.output())];
    if backward {
        bindings.push(("dy", lowering.input(1)));
    }
    let work = Work {
        kernel: "normalize_by_max",
        params: [("backward", Value::from(backward))].into(),
        uniforms: vec![("count", count.into())],
        grid: [1, 1, 1],
        bindings,
        flops: if backward { 6 } else { 2 } * count as u64,
    };
    lowering.dispatch(work, false);
}
