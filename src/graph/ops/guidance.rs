//! Classifier-free guidance.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Guidance {
    pub scale: f32,
}

impl Graph {
    /// u + `scale` (c - u), where the first half of `x`'s batch is the unconditional prediction u,
    /// the second half the conditional one c.
    pub fn guidance(&mut self, x: Tensor, scale: f32) -> Result<Tensor> {
        self.apply(Guidance { scale }, &[x])
    }
}

impl Operation for Guidance {
    fn name(&self) -> &'static str {
        "guidance"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        if x.is_empty() || x[0] % 2 != 0 || x[0] == 0 {
            return Err(format!("expected two halves, found {x}"));
        }
        let mut dims = x.to_vec();
        dims[0] /= 2;
        Ok(dims.into())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let (u, c) = inputs[0].values().split_at(output.len());
        for (y, (u, c)) in output.iter_mut().zip(u.iter().zip(c)) {
            *y = u + self.scale * (c - u);
        }
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let unconditional = graph.scale(context.upstream, 1.0 - self.scale)?;
        let conditional = graph.scale(context.upstream, self.scale)?;
        Ok(vec![Some(graph.concat(&[unconditional, conditional], 0)?)])
    }
}
