//! Elementwise sum and product of two tensors, the second of which may be broadcast.

use super::{Epilogue, Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Add,
    Multiply,
}

#[derive(Debug)]
pub(crate) struct Binary(pub Kind);

/// How the second operand's elements meet the first's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broadcast {
    Same,
    /// One element for all.
    Scalar,
    /// The second operand's shape is the end of the first's: row `i` meets row `i % rows` of
    /// `channels` elements.
    Trailing {
        rows: usize,
        channels: usize,
    },
    /// `[batch, 1, .., channels]`: one row for each batch entry of `rows` rows.
    Batch {
        rows: usize,
        channels: usize,
    },
}

impl Broadcast {
    pub(crate) fn of(a: &Shape, b: &Shape) -> Result<Broadcast, String> {
        if a == b {
            return Ok(Broadcast::Same);
        }
        if b.elements() == 1 {
            return Ok(Broadcast::Scalar);
        }
        if b.len() <= a.len() && a[a.len() - b.len()..] == b[..] {
            return Ok(Broadcast::Trailing { rows: b.rows(), channels: b.channels() });
        }
        if a.len() == b.len()
            && a.len() > 2
            && a[0] == b[0]
            && a.channels() == b.channels()
            && b.elements() == b[0] * b.channels()
        {
            return Ok(Broadcast::Batch { rows: a.rows() / a[0], channels: a.channels() });
        }
        Err(format!("{b} cannot be broadcast to {a}"))
    }

    /// For [`Broadcast::Batch`]: rows that meet one row of the operand.
    pub(crate) fn rows_per_batch(self) -> Option<usize> {
        match self {
            Broadcast::Batch { rows, .. } => Some(rows),
            _ => None,
        }
    }

    /// For [`Broadcast::Trailing`]: the operand's rows, where it is more than one row of channels.
    pub(crate) fn operand_rows(self) -> Option<usize> {
        match self {
            Broadcast::Trailing { rows, .. } if rows != 1 => Some(rows),
            _ => None,
        }
    }

    pub(crate) fn index(self, i: usize) -> usize {
        match self {
            Broadcast::Same => i,
            Broadcast::Scalar => 0,
            Broadcast::Trailing { rows, channels } => i % (rows * channels),
            Broadcast::Batch { rows, channels } => i / (rows * channels) * channels + i % channels,
        }
    }
}

impl Graph {
    /// `a + b`. `b` may have `a`'s shape, one element, the shape of `a`'s end (a bias `[channels]`,
    /// position embeddings `[tokens, channels]`), or one row for each batch entry
    /// (`[batch, 1, 1, channels]`).
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.apply(Binary(Kind::Add), &[a, b])
    }

    /// `a * b`, elementwise; broadcasts as [`Graph::add`] does.
    pub fn multiply(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        self.apply(Binary(Kind::Multiply), &[a, b])
    }
}

impl Operation for Binary {
    fn name(&self) -> &'static str {
        match self.0 {
            Kind::Add => "add",
            Kind::Multiply => "multiply",
        }
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [a, b] = arity(inputs)?;
        Broadcast::of(a, b)?;
        Ok(a.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let Ok(broadcast) = Broadcast::of(&inputs[0].shape, &inputs[1].shape) else { return };
        let (a, b) = (inputs[0].values(), inputs[1].values());
        for (i, y) in output.iter_mut().enumerate() {
            let (a, b) = (a[i], b[broadcast.index(i)]);
            *y = match self.0 {
                Kind::Add => a + b,
                Kind::Multiply => a * b,
            };
        }
    }

    fn as_epilogue(&self, inputs: &[Tensor], position: usize, graph: &Graph) -> Option<Epilogue> {
        let broadcast = Broadcast::of(graph.shape(inputs[0]), graph.shape(inputs[1])).ok()?;
        let other = match position {
            0 => inputs[1],
            _ if broadcast == Broadcast::Same => inputs[0],
            _ => return None,
        };
        Some(match self.0 {
            Kind::Add => Epilogue::Add(other, broadcast),
            Kind::Multiply => Epilogue::Multiply(other, broadcast),
        })
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let [a, b] = [context.inputs[0], context.inputs[1]];
        let times = |graph: &mut Graph, other: Tensor| match self.0 {
            Kind::Add => Ok(context.upstream),
            Kind::Multiply => graph.multiply(context.upstream, other),
        };
        let da = if context.wants(0) { Some(times(graph, b)?) } else { None };
        let mut db = None;
        if context.wants(1) {
            let (all, shape) = (times(graph, a)?, graph.shape(b).clone());
            db = Some(graph.sum_to(all, shape)?);
        }
        Ok(vec![da, db])
    }
}
