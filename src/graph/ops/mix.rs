//! Linear combinations of whole tensors: one step of any linear multistep sampler.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Mix;

impl Graph {
    /// `y[i] = sum_j matrix[i, j] z[j]`, where z is the `slots` entries of `state` `[slots, ..]`
    /// followed by `a` and `b` (each of one entry's shape); `matrix` is `[slots, slots + 2]`. At
    /// most 8 slots.
    pub fn mix(&mut self, state: Tensor, a: Tensor, b: Tensor, matrix: Tensor) -> Result<Tensor> {
        self.apply(Mix, &[state, a, b, matrix])
    }
}

impl Operation for Mix {
    fn name(&self) -> &'static str {
        "mix"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [state, a, b, matrix] = arity(inputs)?;
        let slots = state.first().copied().unwrap_or(0);
        if !(1..=8).contains(&slots)
            || matrix[..] != [slots, slots + 2]
            || state[1..] != a[..]
            || a != b
        {
            return Err(format!("state {state}, inputs {a} and {b}, matrix {matrix} do not fit"));
        }
        Ok(state.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let slots = shape[0];
        let size = output.len() / slots;
        let (state, a, b, matrix) =
            (inputs[0].values(), inputs[1].values(), inputs[2].values(), inputs[3].values());
        for (i, y) in output.iter_mut().enumerate() {
            let (slot, at) = (i / size, i % size);
            let row = &matrix[slot * (slots + 2)..][..slots + 2];
            let old = (0..slots).map(|j| row[j] * state[j * size + at]).sum::<f32>();
            *y = old + row[slots] * a[at] + row[slots + 1] * b[at];
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        2 * output.elements() as u64 * inputs[3][1] as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(context.refuse(graph, self, "inputs", "samplers are not differentiated"))
    }
}
