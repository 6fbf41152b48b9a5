//! Rows of a table, by index.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// Inputs: table, indices, and where the table is continued the rows that continue it.
#[derive(Debug)]
pub(crate) struct Embedding;

/// Of indices and dy `[.., channels]`: the sum of dy's rows for each of the `rows` indices from
/// `first` on, in their order.
#[derive(Debug)]
pub(crate) struct EmbeddingGradient {
    pub first: usize,
    pub rows: usize,
    /// Indices beyond these rows count for the last one.
    pub clamped: bool,
}

impl Graph {
    /// Row `ids[i]` of `table` `[rows, channels]` for every index: `[.., channels]`, the dimensions
    /// of `ids` before. An index beyond the table reads its last row.
    pub fn embedding(&mut self, table: Tensor, ids: Tensor) -> Result<Tensor> {
        self.apply(Embedding, &[table, ids])
    }

    /// [`Graph::embedding`] of a table that goes on in `extra` `[more, channels]`: index `rows + i`
    /// reads its row `i`. So new words join a vocabulary whose table stays as it is.
    pub fn embedding_continued(
        &mut self,
        table: Tensor,
        extra: Tensor,
        ids: Tensor,
    ) -> Result<Tensor> {
        self.apply(Embedding, &[table, ids, extra])
    }
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let (&[table, ids], extra) = inputs
            .split_first_chunk()
            .ok_or_else(|| format!("takes a table and indices, found {}", inputs.len()))?;
        let [rows, channels] = table[..] else {
            return Err(format!("expected a table [rows, channels], found {table}"));
        };
        if rows == 0 {
            return Err("the table is empty".into());
        }
        match extra {
            [] => {}
            [extra] if extra.len() == 2 && extra[0] > 0 && extra[1] == channels => {}
            [extra] => {
                return Err(format!(
                    "a table {table} is continued by rows of {channels} channels, found {extra}"
                ));
            }
            _ => {
                return Err(format!(
                    "takes a table, indices and more rows, found {} inputs",
                    inputs.len()
                ));
            }
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

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let rows = |graph: &Graph, input: Tensor| graph.shape(input)[0];
        let (table, ids, extra) =
            (context.inputs[0], context.inputs[1], context.inputs.get(2).copied());
        let table_rows = rows(graph, table);
        let of_table = EmbeddingGradient { first: 0, rows: table_rows, clamped: extra.is_none() };
        let wanted = context.wants(0).then(|| graph.apply(of_table, &[ids, context.upstream]));
        let mut gradients = vec![wanted.transpose()?, None];
        if let Some(extra) = extra {
            let of_extra =
                EmbeddingGradient { first: table_rows, rows: rows(graph, extra), clamped: true };
            let wanted = context.wants(2).then(|| graph.apply(of_extra, &[ids, context.upstream]));
            gradients.push(wanted.transpose()?);
        }
        Ok(gradients)
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

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
