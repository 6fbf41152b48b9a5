//! How [`pad2d`](crate::graph::ops) runs on a graphics device.

use super::{padded_grid, vector_width};
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work};
use crate::graph::ops::pad2d::Pad2d;

impl Lower for Pad2d {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let input = lowering.input_shape(0).clone();
        let vector = vector_width(&[input.channels()]);
        let mut work = Work {
            kernel: "elementwise",
            params: [("vector", Value::from(vector))].into(),
            uniforms: Vec::new(),
            grid: [0; 3],
            bindings: vec![("x", lowering.input(0)), ("y", lowering.output())],
            flops: 0,
        };
        padded_grid(&input, Some(self.edges), vector, &mut work);
        lowering.dispatch(work, true);
    }
}
