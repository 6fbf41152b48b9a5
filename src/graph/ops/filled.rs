//! One number everywhere.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Filled {
    pub shape: Shape,
    pub value: f32,
}

impl Graph {
    /// A constant of `shape`, `value` everywhere.
    pub fn filled(&mut self, shape: impl Into<Shape>, value: f32) -> Result<Tensor> {
        self.apply(Filled { shape: shape.into(), value }, &[])
    }
}

impl Operation for Filled {
    fn name(&self) -> &'static str {
        "filled"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [] = arity(inputs)?;
        Ok(self.shape.clone())
    }

    fn evaluate(&self, _inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        output.fill(self.value);
    }

    fn flops(&self, _inputs: &[&Shape], _output: &Shape) -> u64 {
        0
    }

    fn gradient(
        &self,
        _graph: &mut Graph,
        _context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(Vec::new())
    }
}
