//! Matrix product with a weight: the linear layer without its bias.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Linear {
    /// Not summed up in parts whose number depends on how many rows there are.
    pub whole: bool,
}

impl Graph {
    /// `y[.., n] = sum_k x[.., k] w[n, k]`: `x` is `[.., in]`, `w` `[out, in]` as files store it.
    pub fn linear(&mut self, x: Tensor, w: Tensor) -> Result<Tensor> {
        self.apply(Linear { whole: self.sums_are_whole() }, &[x, w])
    }
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, w] = arity(inputs)?;
        match w[..] {
            [out, into] if into == x.channels() => Ok(x.with_channels(out)),
            _ => Err(format!("expected a weight [out, {}], found {w}", x.channels())),
        }
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (n, k) = (shape.channels(), inputs[0].shape.channels());
        let w = inputs[1].values();
        // Transposed, so that the inner loop runs along the outputs.
        let mut columns = vec![0.0; n * k];
        for (row, values) in w.chunks_exact(k).enumerate() {
            for (column, &value) in values.iter().enumerate() {
                columns[column * n + row] = value;
            }
        }
        for (y, x) in output.chunks_exact_mut(n).zip(inputs[0].values().chunks_exact(k)) {
            y.fill(0.0);
            for (column, &x) in columns.chunks_exact(n).zip(x) {
                for (y, &w) in y.iter_mut().zip(column) {
                    *y += x * w;
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
        let [x, w] = [context.inputs[0], context.inputs[1]];
        let dx = if context.wants(0) {
            Some(graph.linear_transposed(context.upstream, w)?)
        } else {
            None
        };
        let dw = if context.wants(1) {
            Some(graph.linear_weight_gradient(x, context.upstream)?)
        } else {
            None
        };
        Ok(vec![dx, dw])
    }
}
