//! Rows of a table, by index.

use super::{Layout, Operation, arity};
use crate::gpu::Value;
use crate::graph::lower::{Lowering, Work, spread};
use crate::graph::{Array, Graph, Result, Shape, Tensor};

#[derive(Debug)]
struct Embedding;

impl Graph {
    /// Row `ids[i]` of `table` `[rows, channels]` for every index: `[.., channels]`, the dimensions of `ids` before. An index
    /// beyond the table reads its last row.
    pub fn embedding(&mut self, table: Tensor, ids: Tensor) -> Result<Tensor> {
        self.apply(Embedding, &[table, ids])
    }
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [table, ids] = arity(inputs)?;
        let [rows, channels] = table[..] else { return Err(format!("expected a table [rows, channels], found {table}")) };
        if rows == 0 {
            return Err("the table is empty".into());
        }
        let mut dims = ids.to_vec();
        dims.push(channels);
        Ok(dims.into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (table, channels) = (inputs[0].values(), shape.channels());
        let last = inputs[0].shape[0] - 1;
        for (y, &id) in output.chunks_exact_mut(channels).zip(inputs[1].ids()) {
            let row = (id as usize).min(last);
            y.copy_from_slice(&table[row * channels..][..channels]);
        }
    }

    fn layout(&self, _index: usize) -> Layout {
        Layout::Rows
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (table, shape) = (lowering.input(0), lowering.shape().clone());
        let work = Work {
            kernel: "embedding",
            params: [("half", Value::from(table.half))].into(),
            uniforms: vec![
                ("rows", shape.rows().into()),
                ("channels", shape.channels().into()),
                ("last", (lowering.input_shape(0)[0] - 1).into()),
            ],
            grid: spread(shape.elements().div_ceil(64)),
            bindings: vec![("table", table), ("ids", lowering.input(1)), ("y", lowering.output())],
            flops: 0,
        };
        lowering.dispatch(work, false);
    }
}
