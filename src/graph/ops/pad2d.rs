//! Zero padding of a feature map.

use super::{Operation, arity, padded_grid, vector_width};
use crate::gpu::Value;
use crate::graph::lower::{Lowering, Work};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
struct Pad2d {
    /// top, bottom, left, right
    edges: [usize; 4],
}

impl Graph {
    /// Zeros around `x` `[batch, height, width, channels]`: `edges` are top, bottom, left, right.
    pub fn pad2d(&mut self, x: Tensor, edges: [usize; 4]) -> Result<Tensor> {
        self.apply(Pad2d { edges }, &[x])
    }
}

impl Operation for Pad2d {
    fn name(&self) -> &'static str {
        "pad2d"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [batch, height, width, channels] = arity::<1>(inputs)?[0].image()?;
        let [top, bottom, left, right] = self.edges;
        Ok([batch, height + top + bottom, width + left + right, channels].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let x = &inputs[0];
        let (height, width, channels) = (x.shape[1], x.shape[2], x.shape[3]);
        let [top, _, left, _] = self.edges;
        output.fill(0.0);
        for (line, values) in x.values().chunks_exact(width * channels).enumerate() {
            let (b, y) = (line / height, line % height);
            let at = ((b * shape[1] + y + top) * shape[2] + left) * channels;
            output[at..at + values.len()].copy_from_slice(values);
        }
    }

    fn as_padding(&self) -> Option<[usize; 4]> {
        Some(self.edges)
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        let [top, _, left, _] = self.edges;
        let shape = graph.shape(context.inputs[0]);
        let (height, width) = (shape[1], shape[2]);
        let mut dx = context.upstream;
        for (axis, start, length) in [(1, top, height), (2, left, width)] {
            if graph.shape(dx)[axis] != length {
                dx = graph.slice(dx, axis, start, length)?;
            }
        }
        Ok(vec![Some(dx)])
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let input = lowering.input_shape(0).clone();
        let vector = vector_width(&[input.channels()]);
        let mut work = Work {
            kernel: "elementwise",
            params: [("vector", Value::from(vector))].into(),
            uniforms: Vec::new(),
            grid: [0; 3],
            bindings: vec![("x", lowering.input(0)), ("y", lowering.output())],
            flops: 0,
        };
        padded_grid(&input, Some(self.edges), vector, &mut work);
        lowering.dispatch(work, true);
    }
}
