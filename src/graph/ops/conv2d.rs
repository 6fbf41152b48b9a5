//! Convolution of a feature map that already carries its padding.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Conv2d {
    pub stride: usize,
}

impl Graph {
    /// "Valid" convolution: `x` is `[batch, height, width, in]`, `w` `[out, in, kh, kw]` as files
    /// store it; the output is
    /// `[batch, (height - kh) / stride + 1, (width - kw) / stride + 1, out]`. Pad with
    /// [`Graph::pad2d`] before.
    pub fn conv2d(&mut self, x: Tensor, w: Tensor, stride: usize) -> Result<Tensor> {
        self.apply(Conv2d { stride }, &[x, w])
    }
}

impl Operation for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, w] = arity(inputs)?;
        let [batch, height, width, channels] = x.image()?;
        let [out, into, kh, kw] = <[usize; 4]>::try_from(&w[..])
            .map_err(|_| format!("expected a weight [out, in, kh, kw], found {w}"))?;
        if into != channels || kh > height || kw > width || self.stride == 0 || kh * kw == 0 {
            return Err(format!(
                "a weight {w} with stride {} does not fit the feature map {x}",
                self.stride
            ));
        }
        Ok([batch, (height - kh) / self.stride + 1, (width - kw) / self.stride + 1, out].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (xs, ws) = (&inputs[0].shape, &inputs[1].shape);
        let (x, w) = (inputs[0].values(), inputs[1].values());
        let (height, width, channels) = (xs[1], xs[2], xs[3]);
        let (out, kh, kw) = (ws[0], ws[2], ws[3]);
        // [ky][kx][in][out], so that the inner loop runs along the outputs.
        let mut taps = vec![0.0; w.len()];
        for o in 0..out {
            for i in 0..channels {
                for tap in 0..kh * kw {
                    taps[(tap * channels + i) * out + o] = w[(o * channels + i) * kh * kw + tap];
                }
            }
        }
        for (pixel, y) in output.chunks_exact_mut(out).enumerate() {
            let (b, oy, ox) =
                (pixel / (shape[1] * shape[2]), pixel / shape[2] % shape[1], pixel % shape[2]);
            y.fill(0.0);
            for ky in 0..kh {
                for kx in 0..kw {
                    let at = ((b * height + oy * self.stride + ky) * width + ox * self.stride + kx)
                        * channels;
                    let tap = &taps[(ky * kw + kx) * channels * out..][..channels * out];
                    for (&x, w) in x[at..at + channels].iter().zip(tap.chunks_exact(out)) {
                        for (y, &w) in y.iter_mut().zip(w) {
                            *y += x * w;
                        }
                    }
                }
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        2 * output.elements() as u64 * inputs[1][1..].iter().product::<usize>() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let [x, w] = [context.inputs[0], context.inputs[1]];
        if context.wants(1) {
            return Err(context.refuse(
                graph,
                self,
                "weight",
                "only low-rank updates of linear layers are trained",
            ));
        }
        let shape = graph.shape(x);
        let (height, width) = (shape[1], shape[2]);
        Ok(vec![
            Some(graph.conv2d_transposed(context.upstream, w, self.stride, height, width)?),
            None,
        ])
    }
}
