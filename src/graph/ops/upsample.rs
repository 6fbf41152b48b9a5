//! Nearest-neighbour enlargement of a feature map.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Upsample {
    pub height: usize,
    pub width: usize,
}

/// Of dy `[batch, h, w, channels]`: at `[batch, height, width, channels]`, the sum over the pixels
/// that show each pixel.
#[derive(Debug)]
pub(crate) struct UpsampleGradient {
    pub height: usize,
    pub width: usize,
}

impl Graph {
    /// `x` `[batch, h, w, channels]` at `[batch, height, width, channels]`: output pixel `i` shows
    /// input pixel `floor(i * h / height)`, as torch's `interpolate(mode="nearest")`.
    pub fn upsample_nearest(&mut self, x: Tensor, height: usize, width: usize) -> Result<Tensor> {
        self.apply(Upsample { height, width }, &[x])
    }
}

impl Operation for Upsample {
    fn name(&self) -> &'static str {
        "upsample"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [batch, h, w, channels] = arity::<1>(inputs)?[0].image()?;
        if h == 0 || w == 0 || self.height < h || self.width < w {
            return Err(format!("{h}x{w} cannot be enlarged to {}x{}", self.height, self.width));
        }
        Ok([batch, self.height, self.width, channels].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let x = &inputs[0];
        let (h, w, channels) = (x.shape[1], x.shape[2], x.shape[3]);
        for (pixel, y) in output.chunks_exact_mut(channels).enumerate() {
            let (b, oy, ox) =
                (pixel / (shape[1] * shape[2]), pixel / shape[2] % shape[1], pixel % shape[2]);
            let at = ((b * h + oy * h / self.height) * w + ox * w / self.width) * channels;
            y.copy_from_slice(&x.values()[at..at + channels]);
        }
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let shape = graph.shape(context.inputs[0]);
        let operation = UpsampleGradient { height: shape[1], width: shape[2] };
        Ok(vec![Some(graph.apply(operation, &[context.upstream])?)])
    }
}

impl Operation for UpsampleGradient {
    fn name(&self) -> &'static str {
        "upsample_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [batch, h, w, channels] = arity::<1>(inputs)?[0].image()?;
        if self.height == 0 || self.width == 0 || h < self.height || w < self.width {
            return Err(format!("{h}x{w} is not an enlargement of {}x{}", self.height, self.width));
        }
        Ok([batch, self.height, self.width, channels].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (from, channels) = (&inputs[0].shape, shape.channels());
        output.fill(0.0);
        for (pixel, dy) in inputs[0].values().chunks_exact(channels).enumerate() {
            let (b, y, x) =
                (pixel / (from[1] * from[2]), pixel / from[2] % from[1], pixel % from[2]);
            let at = ((b * self.height + y * self.height / from[1]) * self.width
                + x * self.width / from[2])
                * channels;
            for (sum, dy) in output[at..at + channels].iter_mut().zip(dy) {
                *sum += dy;
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        inputs[0].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
