//! Layer normalisation over the channels of every row.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct LayerNorm {
    pub epsilon: f32,
}

/// Of x, weight and dy: with g = dy * weight and n the normalised row, rstd * (g - mean(g) - n
/// mean(g n)).
#[derive(Debug)]
pub(crate) struct LayerNormGradient {
    pub epsilon: f32,
}

/// Mean and 1/sqrt(variance + `epsilon`) of a row.
fn statistics(row: &[f32], epsilon: f32) -> [f64; 2] {
    let count = row.len() as f64;
    let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    [mean, 1.0 / (variance + f64::from(epsilon)).sqrt()]
}

impl Graph {
    /// Each row of `x` `[.., channels]` to mean 0 and variance 1 (`epsilon` added to it), times
    /// `weight` plus `bias` `[channels]`.
    pub fn layer_norm(
        &mut self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        epsilon: f32,
    ) -> Result<Tensor> {
        self.apply(LayerNorm { epsilon }, &[x, weight, bias])
    }
}

impl Operation for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, weight, bias] = arity(inputs)?;
        if weight[..] != [x.channels()] || bias != weight {
            return Err(format!("{x} with weight {weight} and bias {bias}"));
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let channels = shape.channels();
        let (weight, bias) = (inputs[1].values(), inputs[2].values());
        for (y, x) in
            output.chunks_exact_mut(channels).zip(inputs[0].values().chunks_exact(channels))
        {
            let [mean, rstd] = statistics(x, self.epsilon);
            for c in 0..channels {
                y[c] = ((f64::from(x[c]) - mean) * rstd) as f32 * weight[c] + bias[c];
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        7 * inputs[0].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let [x, weight, bias] = [context.inputs[0], context.inputs[1], context.inputs[2]];
        if context.wants(1) {
            return Err(context.refuse(graph, self, "weight", "norms are not trained"));
        }
        let mut dx = None;
        if context.wants(0) {
            dx = Some(graph.apply(
                LayerNormGradient { epsilon: self.epsilon },
                &[x, weight, context.upstream],
            )?);
        }
        let mut db = None;
        if context.wants(2) {
            let shape = graph.shape(bias).clone();
            db = Some(graph.sum_to(context.upstream, shape)?);
        }
        Ok(vec![dx, None, db])
    }
}

impl Operation for LayerNormGradient {
    fn name(&self) -> &'static str {
        "layer_norm_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, weight, dy] = arity(inputs)?;
        if weight[..] != [x.channels()] || x != dy {
            return Err(format!("{x} with weight {weight} and an upstream gradient {dy}"));
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (channels, weight) = (shape.channels(), inputs[1].values());
        let rows = inputs[0]
            .values()
            .chunks_exact(channels)
            .zip(inputs[2].values().chunks_exact(channels));
        for (dx, (x, dy)) in output.chunks_exact_mut(channels).zip(rows) {
            let [mean, rstd] = statistics(x, self.epsilon);
            let normal = |c: usize| (f64::from(x[c]) - mean) * rstd;
            let g = |c: usize| f64::from(dy[c]) * f64::from(weight[c]);
            let mean_g = (0..channels).map(g).sum::<f64>() / channels as f64;
            let mean_gn = (0..channels).map(|c| g(c) * normal(c)).sum::<f64>() / channels as f64;
            for (c, dx) in dx.iter_mut().enumerate() {
                *dx = (rstd * (g(c) - mean_g - normal(c) * mean_gn)) as f32;
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        12 * inputs[0].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
