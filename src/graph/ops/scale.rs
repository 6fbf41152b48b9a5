//! Multiplication by a constant.

use super::{Fold, Operation, Stage, arity, lower_elementwise};
use crate::graph::lower::Lowering;
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

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

    fn folds(&self) -> Fold {
        Fold::StagesAndPadding
    }

    fn as_stage(&self, _inputs: &[Tensor], _position: usize, _graph: &Graph) -> Option<Stage> {
        Some(Stage::Scale(self.0))
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(graph.scale(context.upstream, self.0)?)])
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower_elementwise(lowering);
    }
}
