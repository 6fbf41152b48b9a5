//! A range of one dimension.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Slice {
    pub axis: usize,
    pub start: usize,
    pub length: usize,
}

impl Graph {
    /// The entries `start .. start + length` of dimension `axis` of `x`.
    pub fn slice(&mut self, x: Tensor, axis: usize, start: usize, length: usize) -> Result<Tensor> {
        self.apply(Slice { axis, start, length }, &[x])
    }
}

impl Operation for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        if self.axis >= x.len() || self.length == 0 || self.start + self.length > x[self.axis] {
            return Err(format!(
                "{x} has no entries {}..{} in dimension {}",
                self.start,
                self.start + self.length,
                self.axis
            ));
        }
        let mut dims = x.to_vec();
        dims[self.axis] = self.length;
        Ok(dims.into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let x = &inputs[0];
        let inner: usize = shape[self.axis + 1..].iter().product();
        let (from, to) = (x.shape[self.axis] * inner, self.length * inner);
        for (y, x) in output.chunks_exact_mut(to).zip(x.values().chunks_exact(from)) {
            y.copy_from_slice(&x[self.start * inner..][..to]);
        }
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        // Zeros before and after along one dimension: what padding does to the lines of a feature
        // map.
        let whole = graph.shape(context.inputs[0]).clone();
        let (outer, inner) = (
            whole[..self.axis].iter().product::<usize>(),
            whole[self.axis + 1..].iter().product::<usize>(),
        );
        let lines = graph.reshape(context.upstream, [outer, self.length, 1, inner])?;
        let padded =
            graph.pad2d(lines, [self.start, whole[self.axis] - self.start - self.length, 0, 0])?;
        Ok(vec![Some(graph.reshape(padded, whole)?)])
    }
}
