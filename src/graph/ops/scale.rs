//! Multiplication by a constant.

use super::{Epilogue, Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Scale(pub f32);

impl Graph {
    /// `factor * x`.
    pub fn scale(&mut self, x: Tensor, factor: f32) -> Result<Tensor> {
        self.apply(Scale(factor), &[x])
    }
}

impl Operation for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        for (y, &x) in output.iter_mut().zip(inputs[0].values()) {
            *y = self.0 * x;
        }
    }

    fn as_epilogue(
        &self,
        _inputs: &[Tensor],
        _position: usize,
        _graph: &Graph,
    ) -> Option<Epilogue> {
        Some(Epilogue::Scale(self.0))
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(graph.scale(context.upstream, self.0)?)])
    }
}
