//! Rows of a table, by index.

use super::filled::lower_filled;
use super::{Layout, Operation, arity, no_second_gradient};
use crate::gpu::{Params, Slice, Value};
use crate::graph::lower::{Located, Lowering, Work, spread};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// Inputs: table, indices, and where the table is continued the rows that continue it.
#[derive(Debug)]
struct Embedding;

/// Of indices and dy `[.., channels]`: the sum of dy's rows for each of the `rows` indices from `first` on, in their order.
#[derive(Debug)]
struct EmbeddingGradient {
    first: usize,
    rows: usize,
    /// Indices beyond these rows count for the last one.
    clamped: bool,
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
    let most = (lowering.traits.max_binding / row_bytes.max(1)) as usize / ROWS_OF_A_PIECE * ROWS_OF_A_PIECE;
    let piece = if row_bytes * rows as u64 <= lowering.traits.max_binding { rows } else { most.max(ROWS_OF_A_PIECE) };
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

    /// [`Graph::embedding`] of a table that goes on in `extra` `[more, channels]`: index `rows + i` reads its row `i`. So new
    /// words join a vocabulary whose table stays as it is.
    pub fn embedding_continued(&mut self, table: Tensor, extra: Tensor, ids: Tensor) -> Result<Tensor> {
        self.apply(Embedding, &[table, ids, extra])
    }
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (&[table, ids], extra) =
            inputs.split_first_chunk().ok_or_else(|| format!("takes a table and indices, found {}", inputs.len()))?;
        let [rows, channels] = table[..] else { return Err(format!("expected a table [rows, channels], found {table}")) };
        if rows == 0 {
            return Err("the table is empty".into());
        }
        match extra {
            [] => {}
            [extra] if extra.len() == 2 && extra[0] > 0 && extra[1] == channels => {}
            [extra] => return Err(format!("a table {table} is continued by rows of {channels} channels, found {extra}")),
            _ => return Err(format!("takes a table, indices and more rows, found {} inputs", inputs.len())),
        }
        let mut dims = ids.to_vec();
        dims.push(channels);
        Ok(dims.into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (table, channels) = (inputs[0].values(), shape.channels());
        let extra = inputs.get(2).map_or(&[][..], |extra| extra.values());
        let last = (table.len() + extra.len()) / channels - 1;
        for (y, &id) in output.chunks_exact_mut(channels).zip(inputs[1].ids()) {
            let at = (id as usize).min(last) * channels;
            let row = if at < table.len() { &table[at..] } else { &extra[at - table.len()..] };
            y.copy_from_slice(&row[..channels]);
        }
    }

    fn layout(&self, index: usize) -> Layout {
        if index == 0 { Layout::Rows } else { Layout::Plain }
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        let rows = |graph: &Graph, input: Tensor| graph.shape(input)[0];
        let (table, ids, extra) = (context.inputs[0], context.inputs[1], context.inputs.get(2).copied());
        let table_rows = rows(graph, table);
        let of_table = EmbeddingGradient { first: 0, rows: table_rows, clamped: extra.is_none() };
        let wanted = context.wants(0).then(|| graph.apply(of_table, &[ids, context.upstream]));
        let mut gradients = vec![wanted.transpose()?, None];
        if let Some(extra) = extra {
            let of_extra = EmbeddingGradient { first: table_rows, rows: rows(graph, extra), clamped: true };
            let wanted = context.wants(2).then(|| graph.apply(of_extra, &[ids, context.upstream]));
            gradients.push(wanted.transpose()?);
        }
        Ok(gradients)
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let table_rows = lowering.input_shape(0)[0];
        let more = if lowering.step.inputs.len() > 2 { lowering.input_shape(2)[0] } else { 0 };
        lower_rows(lowering, 0, [0, table_rows], table_rows + more);
        if more > 0 {
            lower_rows(lowering, 2, [table_rows, more], table_rows + more);
        }
    }
}

/// Looks up the indices that lie in input `index`, whose rows are the `[first, count]` of `all`.
fn lower_rows(lowering: &mut Lowering<'_>, index: usize, [start, rows]: [usize; 2], all: usize) {
    let (table, shape) = (lowering.input(index), lowering.shape().clone());
    for Piece { first, count, table: piece } in pieces(lowering, &table, rows, shape.channels()) {
        let work = Work {
            kernel: "embedding",
            params: [("half", Value::from(table.half))].into(),
            uniforms: vec![
                ("rows", shape.rows().into()),
                ("channels", shape.channels().into()),
                ("last", (all - 1).into()),
                ("first", (start + first).into()),
                ("count", count.into()),
            ],
            grid: spread(shape.elements().div_ceil(64)),
            bindings: vec![("table", piece), ("ids", lowering.input(1)), ("y", lowering.output())],
            flops: 0,
        };
        lowering.dispatch(work, false);
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
            let Some(row) = (id as usize).checked_sub(self.first) else { continue };
            let row = if self.clamped { row.min(self.rows - 1) } else { row };
            if row >= self.rows {
                continue;
            }
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
        let last = if self.clamped { self.first + self.rows - 1 } else { u32::MAX as usize };
        for Piece { first, count, table } in pieces(lowering, &table, self.rows, channels) {
            lower_filled(lowering, table.clone(), count * channels, 0.0);
            let [x, y, _] = spread(indices);
            let work = Work {
                kernel: "embedding_gradient",
                params: Params::new(),
                uniforms: vec![
                    ("indices", indices.into()),
                    ("channels", channels.into()),
                    ("last", last.into()),
                    ("first", (self.first + first).into()),
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
