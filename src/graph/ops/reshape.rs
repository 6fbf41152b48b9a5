//! The same elements in another shape: free, both are views of one storage.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Reshape(pub Shape);

impl Graph {
    /// `x`'s elements, in order, as `shape`.
    pub fn reshape(&mut self, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
        self.apply(Reshape(shape.into()), &[x])
    }
}

impl Operation for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        if x.elements() != self.0.elements() {
            return Err(format!(
                "{x} has {} elements, {} has {}",
                x.elements(),
                self.0,
                self.0.elements()
            ));
        }
        Ok(self.0.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        output.copy_from_slice(inputs[0].values());
    }

    fn flops(&self, _inputs: &[&Shape], _output: &Shape) -> u64 {
        0
    }

    fn is_view(&self) -> bool {
        true
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let shape = graph.shape(context.inputs[0]).clone();
        Ok(vec![Some(graph.reshape(context.upstream, shape)?)])
    }
}
