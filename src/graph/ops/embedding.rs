//! Rows of a table, by index.

use super::filled::lower_filled;
use super::{Layout, Operation, arity, no_second_gradient};
use crate::gpu::{Params, Slice, Value};
use crate::graph::lower::{Located, Lowering, Work, spread};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
struct Embedding;

/// Of indices and dy `[.., channels]`: the sum of dy's rows for each of `rows` indices, in their order.
#[derive(Debug)]
struct EmbeddingGradient {
    rows: usize,
}

/// So many rows take a multiple of 256 bytes, whatever their width and precision.
const ROWS_OF_A_PIECE: usize = 128;

/// Rows of a table on the device.
struct Piece {
    first: usize,
    count: usize,
    table: Located,
}

/// A table of `rows` rows, in pieces where it is larger than a binding, at offsets that any device takes.
fn pieces(lowering: &Lowering<'_>, table: &Located, rows: usize, channels: usize) -> Vec<Piece> {
    let row_bytes = channels as u64 * if table.half { 2 } else { 4 };
    let most = (lowering.preferences.max_binding / row_bytes.max(1)) as usize / ROWS_OF_A_PIECE * ROWS_OF_A_PIECE;
    let piece = if row_bytes * rows as u64 <= lowering.preferences.max_binding { rows } else { most.max(ROWS_OF_A_PIECE) };
    let cut = |first: usize| {
        let (count, start) = (piece.min(rows - first), first as u64 * row_bytes);
        let size = if first + count == rows { table.slice.size - start } else { count as u64 * row_bytes };
        let slice = Slice { offset: table.slice.offset + start, size, ..table.slice.clone() };
        Piece { first, count, table: Located { slice, ..table.clone() } }
    };
    (0..rows).step_by(piece.max(1)).map(cut).collect()
}

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

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        let [table, ids] = [context.inputs[0], context.inputs[1]];
        let rows = graph.shape(table)[0];
        Ok(vec![Some(graph.apply(EmbeddingGradient { rows }, &[ids, context.upstream])?), None])
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (table, shape, rows) = (lowering.input(0), lowering.shape().clone(), lowering.input_shape(0)[0]);
        for Piece { first, count, table: piece } in pieces(lowering, &table, rows, shape.channels()) {
            let work = Work {
                kernel: "embedding",
                params: [("half", Value::from(table.half))].into(),
                uniforms: vec![
                    ("rows", shape.rows().into()),
                    ("channels", shape.channels().into()),
                    ("last", (rows - 1).into()),
                    ("first", first.into()),
                    ("count", count.into()),
                ],
                grid: spread(shape.elements().div_ceil(64)),
                bindings: vec![("table", piece), ("ids", lowering.input(1)), ("y", lowering.output())],
                flops: 0,
            };
            lowering.dispatch(work, false);
        }
    }
}

impl Operation for EmbeddingGradient {
    fn name(&self) -> &'static str {
        "embedding_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [ids, dy] = arity(inputs)?;
        if dy.is_empty() || dy[..dy.len() - 1] != ids[..] {
            return Err(format!("indices {ids} with an upstream gradient {dy}"));
        }
        Ok([self.rows, dy.channels()].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let channels = shape.channels();
        output.fill(0.0);
        for (&id, dy) in inputs[0].ids().iter().zip(inputs[1].values().chunks_exact(channels)) {
            let row = (id as usize).min(self.rows - 1);
            for (sum, dy) in output[row * channels..][..channels].iter_mut().zip(dy) {
                *sum += dy;
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        inputs[1].elements() as u64
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (indices, channels) = (lowering.input_shape(0).elements(), lowering.shape().channels());
        let table = lowering.output();
        for Piece { first, count, table } in pieces(lowering, &table, self.rows, channels) {
            lower_filled(lowering, table.clone(), count * channels, 0.0);
            let [x, y, _] = spread(indices);
            let work = Work {
                kernel: "embedding_gradient",
                params: Params::new(),
                uniforms: vec![
                    ("indices", indices.into()),
                    ("channels", channels.into()),
                    ("last", (self.rows - 1).into()),
                    ("first", first.into()),
                    ("count", count.into()),
                ],
                grid: [x, y, channels.div_ceil(64)],
                bindings: vec![("ids", lowering.input(0)), ("x", lowering.input(1)), ("y", table)],
                flops: (indices * channels) as u64,
            };
            lowering.dispatch(work, false);
        }
    }
}
