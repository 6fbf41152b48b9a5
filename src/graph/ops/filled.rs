//! One number everywhere.

use super::{Operation, arity};
use crate::gpu::Params;
use crate::graph::lower::{Located, Lowering, Work, spread};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
struct Filled {
    shape: Shape,
    value: f32,
}

/// Writes `value` to the `elements` of `to`.
pub(super) fn lower_filled(lowering: &mut Lowering<'_>, to: Located, elements: usize, value: f32) {
    let work = Work {
        kernel: "filled",
        params: Params::new(),
        uniforms: vec![("elements", elements.into()), ("value", value.into())],
        grid: spread(elements.div_ceil(64)),
        bindings: vec![("y", to)],
        flops: 0,
    };
    lowering.dispatch(work, false);
}

impl Graph {
    /// A constant of `shape`, `value` everywhere.
    pub fn filled(&mut self, shape: impl Into<Shape>, value: f32) -> Result<Tensor> {
        self.apply(Filled { shape: shape.into(), value }, &[])
    }
}

impl Operation for Filled {
    fn name(&self) -> &'static str {
        "filled"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [] = arity(inputs)?;
        Ok(self.shape.clone())
    }

    fn evaluate(&self, _inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        output.fill(self.value);
    }

    fn flops(&self, _inputs: &[&Shape], _output: &Shape) -> u64 {
        0
    }

    fn gradient(&self, _graph: &mut Graph, _context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(Vec::new())
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower_filled(lowering, lowering.output(), self.shape.elements(), self.value);
    }
}
