//! Joining tensors along one dimension.

use super::Operation;
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Concat {
    pub axis: usize,
}

impl Graph {
    /// `tensors` one after another along dimension `axis`; all other extents agree.
    pub fn concat(&mut self, tensors: &[Tensor], axis: usize) -> Result<Tensor> {
        self.apply(Concat { axis }, tensors)
    }

    /// `a` and `b` joined along their channels.
    pub fn concat_channels(&mut self, a: Tensor, b: Tensor) -> Result<Tensor> {
        let axis = self.shape(a).len().saturating_sub(1);
        self.concat(&[a, b], axis)
    }
}

impl Operation for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let first = inputs.first().ok_or("nothing to join")?;
        let fits = |s: &Shape| {
            s.len() == first.len()
                && s.iter()
                    .zip(first.iter())
                    .enumerate()
                    .all(|(i, (a, b))| i == self.axis || a == b)
        };
        if self.axis >= first.len() || !inputs.iter().all(|s| fits(s)) {
            let list = inputs.iter().map(|s| s.to_string()).collect::<Vec<_>>().join(", ");
            return Err(format!("{list} cannot be joined along dimension {}", self.axis));
        }
        let mut dims = first.to_vec();
        dims[self.axis] = inputs.iter().map(|s| s[self.axis]).sum();
        Ok(dims.into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let block = |s: &Shape| s[self.axis..].iter().product::<usize>();
        let mut at = 0;
        for x in inputs {
            let width = block(&x.shape);
            for (y, x) in output.chunks_exact_mut(block(shape)).zip(x.values().chunks_exact(width))
            {
                y[at..at + width].copy_from_slice(x);
            }
            at += width;
        }
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut start = 0;
        let mut gradients = Vec::with_capacity(context.inputs.len());
        for (index, &input) in context.inputs.iter().enumerate() {
            let length = graph.shape(input)[self.axis];
            let wanted = context.wants(index);
            gradients.push(if wanted {
                Some(graph.slice(context.upstream, self.axis, start, length)?)
            } else {
                None
            });
            start += length;
        }
        Ok(gradients)
    }
}
