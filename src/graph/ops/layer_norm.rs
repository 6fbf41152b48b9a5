//! Layer normalisation over the channels of every row.

use super::{Fold, Operation, arity, vector_width};
use crate::gpu::Value;
use crate::graph::lower::{Lowering, Work, spread};
use crate::graph::{Array, Graph, Result, Shape, Tensor};

#[derive(Debug)]
struct LayerNorm {
    epsilon: f32,
}

impl Graph {
    /// Each row of `x` `[.., channels]` to mean 0 and variance 1 (`epsilon` added to it), times `weight` plus `bias`
    /// `[channels]`.
    pub fn layer_norm(&mut self, x: Tensor, weight: Tensor, bias: Tensor, epsilon: f32) -> Result<Tensor> {
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
        for (y, x) in output.chunks_exact_mut(channels).zip(inputs[0].values().chunks_exact(channels)) {
            let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / channels as f64;
            let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / channels as f64;
            let rstd = 1.0 / (variance + f64::from(self.epsilon)).sqrt();
            for c in 0..channels {
                y[c] = ((f64::from(x[c]) - mean) * rstd) as f32 * weight[c] + bias[c];
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        7 * inputs[0].elements() as u64
    }

    fn folds(&self) -> Fold {
        Fold::Stages
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let shape = lowering.shape().clone();
        let vector = vector_width(&[shape.channels()]);
        let work = Work {
            kernel: "layer_norm",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![
                ("rows", shape.rows().into()),
                ("channels", (shape.channels() / vector).into()),
                ("epsilon", self.epsilon.into()),
            ],
            grid: spread(shape.rows()),
            bindings: vec![
                ("x", lowering.input(0)),
                ("weight", lowering.input(1)),
                ("bias", lowering.input(2)),
                ("y", lowering.output()),
            ],
            flops: 7 * shape.elements() as u64,
        };
        lowering.dispatch(work, true);
    }
}
