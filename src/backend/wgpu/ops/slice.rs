//! How [`slice`](crate::graph::ops) runs on a graphics device.

use super::lower_copy;
use crate::backend::wgpu::lowering::{Lower, Lowering};
use crate::graph::ops::slice::Slice;

impl Lower for Slice {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let inner: usize = lowering.shape()[self.axis + 1..].iter().product();
        let (from, to) = (lowering.input_shape(0)[self.axis] * inner, self.length * inner);
        let rows = lowering.shape().elements() / to;
        lower_copy(lowering, 0, rows, to, [from, self.start * inner], [to, 0]);
    }
}
