//! Means of two by two pixels.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct AveragePool;

impl Graph {
    /// `x` `[batch, height, width, channels]` at half the size, rounded up: the means of two by two
    /// pixels, at an odd edge of those that are there. As torch's `avg_pool2d(2, ceil_mode=True)`.
    /// Not differentiated.
    pub fn average_pool(&mut self, x: Tensor) -> Result<Tensor> {
        self.apply(AveragePool, &[x])
    }
}

impl Operation for AveragePool {
    fn name(&self) -> &'static str {
        "average pool"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [batch, height, width, channels] = arity::<1>(inputs)?[0].image()?;
        Ok([batch, height.div_ceil(2), width.div_ceil(2), channels].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let x = &inputs[0];
        let (height, width, channels) = (x.shape[1], x.shape[2], x.shape[3]);
        for (i, y) in output.iter_mut().enumerate() {
            let (pixel, c) = (i / channels, i % channels);
            let (b, top, left) = (
                pixel / (shape[1] * shape[2]),
                pixel / shape[2] % shape[1] * 2,
                pixel % shape[2] * 2,
            );
            let rows = top..(top + 2).min(height);
            let places = rows.flat_map(|y| (left..(left + 2).min(width)).map(move |x| (y, x)));
            let values = places.map(|(y, x)| {
                f64::from(inputs[0].values()[((b * height + y) * width + x) * channels + c])
            });
            let (count, sum) = values.fold((0.0, 0.0), |(count, sum), v| (count + 1.0, sum + v));
            *y = (sum / count) as f32;
        }
    }

    fn flops(&self, _inputs: &[&Shape], output: &Shape) -> u64 {
        4 * output.elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(context.refuse(graph, self, "inputs", "networks that steer are not trained"))
    }
}
