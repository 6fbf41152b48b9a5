//! The gated linear unit of Stable Diffusion's feed-forward layers.

use super::{Function, Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Geglu;

/// Of x `[.., 2 d]` and dy `[.., d]`: dy * gelu(gate) for the values, dy * value * gelu'(gate) for
/// the gates.
#[derive(Debug)]
pub(crate) struct GegluGradient;

impl Graph {
    /// `x` `[.., 2 d]` holds values, then gates: the output `[.., d]` is value * gelu(gate).
    pub fn geglu(&mut self, x: Tensor) -> Result<Tensor> {
        self.apply(Geglu, &[x])
    }
}

impl Operation for Geglu {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        if x.channels() % 2 != 0 {
            return Err(format!("expected an even number of channels, found {x}"));
        }
        Ok(x.with_channels(x.channels() / 2))
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let d = shape.channels();
        for (y, x) in output.chunks_exact_mut(d).zip(inputs[0].values().chunks_exact(2 * d)) {
            for c in 0..d {
                y[c] = x[c] * Function::Gelu.apply(x[d + c]);
            }
        }
    }

    fn is_gate(&self) -> bool {
        true
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(graph.apply(GegluGradient, &[context.inputs[0], context.upstream])?)])
    }
}

impl Operation for GegluGradient {
    fn name(&self) -> &'static str {
        "geglu_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, dy] = arity(inputs)?;
        if *x != dy.with_channels(2 * dy.channels()) {
            return Err(format!("{x} with an upstream gradient {dy}"));
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let d = shape.channels() / 2;
        let rows = inputs[0].values().chunks_exact(2 * d).zip(inputs[1].values().chunks_exact(d));
        for (dx, (x, dy)) in output.chunks_exact_mut(2 * d).zip(rows) {
            for c in 0..d {
                dx[c] = dy[c] * Function::Gelu.apply(x[d + c]);
                dx[d + c] = dy[c] * x[c] * Function::Gelu.derivative(x[d + c]);
            }
        }
    }

    fn flops(&self, _inputs: &[&Shape], output: &Shape) -> u64 {
        12 * output.elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
