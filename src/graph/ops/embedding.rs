//! Rows of a table, by index.

use super::{Operation, arity};
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
}
