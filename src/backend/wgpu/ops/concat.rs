//! How [`concat`](crate::graph::ops) runs on a graphics device.

use super::lower_copy;
use crate::backend::wgpu::lowering::{Lower, Lowering};
use crate::graph::ops::concat::Concat;

impl Lower for Concat {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let to = lowering.shape()[self.axis..].iter().product::<usize>();
        let mut at = 0;
        for index in 0..lowering.step.inputs.len() {
            let input = lowering.input_shape(index).clone();
            let width = input[self.axis..].iter().product::<usize>();
            lower_copy(lowering, index, input.elements() / width, width, [width, 0], [to, at]);
            at += width;
        }
    }
}
