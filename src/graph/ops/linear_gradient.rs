//! The two products of a linear layer's backward pass: with the transposed weight, and of inputs
//! with upstream gradients.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct LinearTransposed;

#[derive(Debug)]
pub(crate) struct LinearWeightGradient;

impl Graph {
    /// `dx[.., k] = sum_n dy[.., n] w[n, k]`: the gradient of [`Graph::linear`] with respect to its
    /// input. `dy` is `[.., out]`, `w` `[out, in]`.
    pub fn linear_transposed(&mut self, dy: Tensor, w: Tensor) -> Result<Tensor> {
        self.apply(LinearTransposed, &[dy, w])
    }

    /// `dw[n, k] = sum_r dy[r, n] x[r, k]` over all rows: the gradient of [`Graph::linear`] with
    /// respect to its weight. Meant for hidden matrices (low-rank updates).
    pub fn linear_weight_gradient(&mut self, x: Tensor, dy: Tensor) -> Result<Tensor> {
        self.apply(LinearWeightGradient, &[x, dy])
    }
}

impl Operation for LinearTransposed {
    fn name(&self) -> &'static str {
        "linear_transposed"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [dy, w] = arity(inputs)?;
        match w[..] {
            [out, into] if out == dy.channels() => Ok(dy.with_channels(into)),
            _ => Err(format!("expected a weight [{}, in], found {w}", dy.channels())),
        }
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (n, k) = (inputs[0].shape.channels(), shape.channels());
        for (dx, dy) in output.chunks_exact_mut(k).zip(inputs[0].values().chunks_exact(n)) {
            dx.fill(0.0);
            for (w, &dy) in inputs[1].values().chunks_exact(k).zip(dy) {
                for (dx, &w) in dx.iter_mut().zip(w) {
                    *dx += dy * w;
                }
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        2 * output.elements() as u64 * inputs[0].channels() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}

impl Operation for LinearWeightGradient {
    fn name(&self) -> &'static str {
        "linear_weight_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, dy] = arity(inputs)?;
        if dy.with_channels(x.channels()) != *x {
            return Err(format!("{x} with an upstream gradient {dy}"));
        }
        Ok([dy.channels(), x.channels()].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (n, k) = (shape[0], shape[1]);
        let mut sums = vec![0.0f64; n * k];
        for (x, dy) in inputs[0].values().chunks_exact(k).zip(inputs[1].values().chunks_exact(n)) {
            for (sums, &dy) in sums.chunks_exact_mut(k).zip(dy) {
                for (sum, &x) in sums.iter_mut().zip(x) {
                    *sum += f64::from(dy) * f64::from(x);
                }
            }
        }
        for (dw, sum) in output.iter_mut().zip(sums) {
            *dw = sum as f32;
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        2 * output.elements() as u64 * inputs[0].rows() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
