//! Multiplication by a constant.

use super::{Operation, arity};
use crate::graph::{Array, Graph, Result, Shape, Tensor};

#[derive(Debug)]
struct Scale(f32);

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
}
