//! How [`outer_sums`](crate::graph::ops) runs on a graphics device.

use super::vector_width;
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lower, Lowering, Work};
use crate::graph::ops::outer_sums::OuterSums;

/// Rows that a kernel sums in f32 before it adds them up with compensation.
pub(super) const BLOCK: usize = 64;
/// Rows of the sums in a register tile.
pub(super) const TILE: usize = 8;

impl Lower for OuterSums {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (n, rows) = (lowering.shape()[1], lowering.input_shape(1).rows());
        let (from, to) = (lowering.input(0), lowering.output());
        if !lowering.is_in_place() {
            lowering.copy(from.slice, to.slice.clone());
        }
        let vector = vector_width(&[n]);
        let groups = lowering.traits.tuned.outer_sums.tiles;
        let work = Work {
            kernel: "outer_sums",
            params: [
                ("vector", Value::from(vector)),
                ("groups", Value::from(groups)),
                ("block", Value::from(BLOCK)),
            ]
            .into(),
            uniforms: vec![
                ("rows", rows.into()),
                ("n", n.into()),
                ("channels", (n / vector).into()),
                ("one", 1.0f32.into()),
            ],
            grid: [(n / vector).div_ceil(16), n.div_ceil(TILE * groups), 1],
            bindings: vec![("x", lowering.input(1)), ("sums", to)],
            flops: (rows * n * (n + 1)) as u64,
        };
        lowering.dispatch(work, false);
    }
}
