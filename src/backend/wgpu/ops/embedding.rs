//! How [`embedding`](crate::graph::ops) runs on a graphics device.

use super::filled::lower_filled;
use crate::backend::wgpu::layout::{Held, Layout};
use crate::backend::wgpu::lowering::{BufferView, Lower, Lowering, Work, spread};
use crate::backend::wgpu::{Params, Slice, Value};
use crate::graph::ops::embedding::{Embedding, EmbeddingGradient};

/// So many rows take a multiple of 256 bytes, whatever their width and precision.
pub(super) const ROWS_OF_A_PIECE: usize = 128;

/// Rows of a table on the device.
struct Piece {
    first: usize,
    count: usize,
    table: BufferView,
}

/// A table of `rows` rows, in pieces where it is larger than a binding, at offsets that any device
/// takes.
fn pieces(lowering: &Lowering<'_>, table: &BufferView, rows: usize, channels: usize) -> Vec<Piece> {
    let row_bytes = channels as u64 * if table.held == Held::F16 { 2 } else { 4 };
    let most = (lowering.traits.limits.max_binding / row_bytes.max(1)) as usize / ROWS_OF_A_PIECE
        * ROWS_OF_A_PIECE;
    let piece = if row_bytes * rows as u64 <= lowering.traits.limits.max_binding {
        rows
    } else {
        most.max(ROWS_OF_A_PIECE)
    };
    let cut = |first: usize| {
        let (count, start) = (piece.min(rows - first), first as u64 * row_bytes);
        let size =
            if first + count == rows { table.slice.size - start } else { count as u64 * row_bytes };
        let slice = Slice { offset: table.slice.offset + start, size, ..table.slice.clone() };
        Piece { first, count, table: BufferView { slice, ..table.clone() } }
    };
    (0..rows).step_by(piece.max(1)).map(cut).collect()
}

impl Lower for Embedding {
    fn layout(&self, index: usize) -> Layout {
        if index == 0 { Layout::Rows } else { Layout::Plain }
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
            params: [("half", Value::from(table.held == Held::F16))].into(),
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

impl Lower for EmbeddingGradient {
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
