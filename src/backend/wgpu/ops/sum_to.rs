//! How [`sum_to`](crate::graph::ops) runs on a graphics device.

use super::vector_width;
use crate::backend::wgpu::lowering::{BufferView, Lower, Lowering, Work, spread};
use crate::backend::wgpu::{Traits, Value};
use crate::graph::Shape;
use crate::graph::ops::sum_to::{BroadcastTo, Extents, SumTo};

impl Lower for SumTo {
    fn scratch(&self, inputs: &[&Shape], output: &Shape, _traits: &Traits) -> Option<usize> {
        let extents = Extents::of(inputs[0], output);
        let chunks = extents.chunks();
        (chunks > 1).then_some(extents.outer * chunks * extents.inner)
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let Extents { outer, middle, inner } =
            Extents::of(lowering.input_shape(0), lowering.shape());
        let chunks = Extents { outer, middle, inner }.chunks();
        let vector = vector_width(&[inner]);
        let (x, y, scratch) = (lowering.input(0), lowering.output(), lowering.scratch());
        let mut sum = |from: BufferView, to: BufferView, reduced: usize, chunks: usize| {
            let work = Work {
                kernel: "sum",
                params: [("vector", Value::from(vector))].into(),
                uniforms: vec![
                    ("outer", outer.into()),
                    ("reduced", reduced.into()),
                    ("inner", (inner / vector).into()),
                    ("chunks", chunks.into()),
                ],
                grid: spread((outer * chunks * inner / vector).div_ceil(64)),
                bindings: vec![("x", from), ("y", to)],
                flops: (outer * reduced * inner) as u64,
            };
            lowering.dispatch(work, false);
        };
        if chunks == 1 {
            return sum(x, y, middle, 1);
        }
        sum(x, scratch.clone(), middle, chunks);
        sum(scratch, y, chunks, 1);
    }
}

impl Lower for BroadcastTo {
    fn lower(&self, lowering: &mut Lowering<'_>) {
        let Extents { outer, middle, inner } =
            Extents::of(lowering.shape(), lowering.input_shape(0));
        let vector = vector_width(&[inner]);
        let work = Work {
            kernel: "broadcast",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![
                ("outer", outer.into()),
                ("repeated", middle.into()),
                ("inner", (inner / vector).into()),
            ],
            grid: spread((outer * middle * inner / vector).div_ceil(64)),
            bindings: vec![("x", lowering.input(0)), ("y", lowering.output())],
            flops: 0,
        };
        lowering.dispatch(work, false);
    }
}
