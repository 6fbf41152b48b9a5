//! Division by the greatest element.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct NormalizeByMax;

/// Of x and dy: dx.
#[derive(Debug)]
pub(crate) struct NormalizeByMaxGradient;

impl Graph {
    /// `x` divided by its greatest element, which should be positive. Where several are the
    /// greatest, they share what flows back to it.
    pub fn normalize_by_max(&mut self, x: Tensor) -> Result<Tensor> {
        self.apply(NormalizeByMax, &[x])
    }
}

fn greatest(x: &Array) -> f32 {
    x.values().iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

impl Operation for NormalizeByMax {
    fn name(&self) -> &'static str {
        "normalize_by_max"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        if x.elements() == 0 {
            return Err("nothing is the greatest of no elements".into());
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let greatest = greatest(inputs[0]);
        for (y, x) in output.iter_mut().zip(inputs[0].values()) {
            *y = x / greatest;
        }
    }

    fn flops(&self, _inputs: &[&Shape], output: &Shape) -> u64 {
        2 * output.elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(graph.apply(NormalizeByMaxGradient, &[context.inputs[0], context.upstream])?)])
    }
}

impl Operation for NormalizeByMaxGradient {
    fn name(&self) -> &'static str {
        "over_greatest_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, dy] = arity(inputs)?;
        if x != dy {
            return Err(format!("{x} with an upstream gradient {dy}"));
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let (x, dy) = (inputs[0].values(), inputs[1].values());
        let greatest = greatest(inputs[0]);
        let total: f64 = x.iter().zip(dy).map(|(&x, &dy)| f64::from(x) * f64::from(dy)).sum();
        let ties = x.iter().filter(|&&x| x == greatest).count();
        let share = (total / f64::from(greatest) / ties as f64) as f32;
        for ((y, &x), dy) in output.iter_mut().zip(x).zip(dy) {
            *y = (dy - if x == greatest { share } else { 0.0 }) / greatest;
        }
    }

    fn flops(&self, _inputs: &[&Shape], output: &Shape) -> u64 {
        6 * output.elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
