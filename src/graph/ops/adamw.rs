//! The optimiser's update (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019),
//! as torch's AdamW does it.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// How one update weighs the gradient; all but the exponents of the moments may differ from step to
/// step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root, so that nothing is divided by 0.
    pub epsilon: f32,
}

#[derive(Debug)]
pub(crate) struct AdamW(pub Moments);

/// Numbers that an update is told: see [`Graph::adamw`].
pub const RATES: usize = 5;

impl Graph {
    /// The state after an update by `gradient` `[n]`: `state` is `[3, n]`, the numbers and their
    /// first and second moments, and takes the result by [`Graph::assign`].
    ///
    /// `rates` `[5]`: 1 - learning rate * weight decay; learning rate / (1 - beta1^t); sqrt(1 -
    /// beta2^t) at the t-th update, counted from 1; a factor of the gradient (1 / batches of an
    /// accumulation); whether anything moves (0 or 1). Nothing moves either where `loss` `[1]` is
    /// not finite, so that the state from before can be looked at.
    pub fn adamw(
        &mut self,
        state: Tensor,
        gradient: Tensor,
        rates: Tensor,
        loss: Tensor,
        moments: Moments,
    ) -> Result<Tensor> {
        self.apply(AdamW(moments), &[state, gradient, rates, loss])
    }
}

impl Operation for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [state, gradient, rates, loss] = arity(inputs)?;
        let [count] = gradient[..] else {
            return Err(format!("expected a gradient [numbers], found {gradient}"));
        };
        if state[..] != [3, count] || rates[..] != [RATES] || loss[..] != [1] {
            return Err(format!(
                "state {state}, gradient {gradient}, rates {rates} and loss {loss} do not fit"
            ));
        }
        Ok(state.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let (gradient, rates, loss) =
            (inputs[1].values(), inputs[2].values(), inputs[3].values()[0]);
        output.copy_from_slice(inputs[0].values());
        if rates[4] == 0.0 || !loss.is_finite() {
            return;
        }
        let Moments { beta1, beta2, epsilon } = self.0;
        let (numbers, moments) = output.split_at_mut(gradient.len());
        let (first, second) = moments.split_at_mut(gradient.len());
        for (((p, m), v), g) in numbers.iter_mut().zip(first).zip(second).zip(gradient) {
            let g = g * rates[3];
            *m += (g - *m) * (1.0 - beta1);
            *v = *v * beta2 + g * g * (1.0 - beta2);
            *p = *p * rates[0] - rates[1] * (*m / (v.sqrt() / rates[2] + epsilon));
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        14 * inputs[1].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
