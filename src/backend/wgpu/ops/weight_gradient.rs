//! The kernels of a hidden weight's gradient: rows are summed in blocks of a fixed size, then the
//! blocks in their order, so that every run gives the same bytes.

use super::vector_width;
use crate::backend::wgpu::Value;
use crate::backend::wgpu::lowering::{Lowering, Work, spread};
use crate::backend::wgpu::tuned::WeightGradientSizes;
use crate::graph::Shape;

/// Rows of a block, and blocks.
fn blocks(sizes: &WeightGradientSizes, rows: usize) -> (usize, usize) {
    let length = rows.div_ceil(sizes.most_blocks).max(sizes.shortest_block);
    (length, rows.div_ceil(length).max(1))
}

/// Scratch elements for the gradient of a weight of `shape` from `rows` rows.
pub(super) fn scratch(sizes: &WeightGradientSizes, rows: usize, shape: &Shape) -> usize {
    blocks(sizes, rows).1 * shape.elements()
}

/// Dispatches `dw[n, k] = sum_r dy[r, n] x[r, k]` for inputs x and dy, of whose channels the fewer
/// should be few.
pub(super) fn lower(lowering: &mut Lowering<'_>) {
    let (out, into, rows) =
        (lowering.shape()[0], lowering.shape()[1], lowering.input_shape(0).rows());
    let (x, dy) = (lowering.input(0), lowering.input(1));
    let swapped = out > into;
    let (a, b, wide, few) = if swapped { (dy, x, out, into) } else { (x, dy, into, out) };
    let sizes = lowering.traits.tuned.weight_gradient;
    let ((length, blocks), lanes) = (blocks(&sizes, rows), sizes.lanes);
    let vector = vector_width(&[wide]);
    let partial = Work {
        kernel: "weight_gradient_partial",
        params: [
            ("vector", Value::from(vector)),
            ("vector_few", Value::from(vector_width(&[few]))),
            ("lanes", Value::from(lanes)),
        ]
        .into(),
        uniforms: vec![
            ("rows", rows.into()),
            ("wide", (wide / vector).into()),
            ("few", few.into()),
            ("chunk", length.into()),
        ],
        grid: [(wide / vector).div_ceil(lanes), few.div_ceil(4), blocks],
        bindings: vec![("a", a), ("b", b), ("partial", lowering.scratch())],
        flops: 2 * (rows * wide * few) as u64,
    };
    lowering.dispatch(partial, false);
    let sum = Work {
        kernel: "weight_gradient",
        params: [("swapped", Value::from(swapped))].into(),
        uniforms: vec![("chunks", blocks.into()), ("wide", wide.into()), ("few", few.into())],
        grid: spread((wide * few).div_ceil(64)),
        bindings: vec![("partial", lowering.scratch()), ("y", lowering.output())],
        flops: 0,
    };
    lowering.dispatch(sum, false);
}
