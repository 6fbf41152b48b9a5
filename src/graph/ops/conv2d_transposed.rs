//! The gradient of a convolution with respect to its feature map: every output pixel gives back to its window.

use super::{Operation, arity, no_second_gradient};
use crate::graph::lower::Lowering;
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
struct Conv2dTransposed {
    stride: usize,
    height: usize,
    width: usize,
}

impl Graph {
    /// The gradient of [`Graph::conv2d`] with respect to its `[batch, height, width, in]`: `dy` is `[batch, h, w, out]`, `w`
    /// `[out, in, kh, kw]`. Lines and columns that no window reached get zero.
    pub fn conv2d_transposed(&mut self, dy: Tensor, w: Tensor, stride: usize, height: usize, width: usize) -> Result<Tensor> {
        self.apply(Conv2dTransposed { stride, height, width }, &[dy, w])
    }
}

impl Operation for Conv2dTransposed {
    fn name(&self) -> &'static str {
        "conv2d_transposed"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [dy, w] = arity(inputs)?;
        let [batch, height, width, channels] = dy.image()?;
        let [out, into, kh, kw] =
            <[usize; 4]>::try_from(&w[..]).map_err(|_| format!("expected a weight [out, in, kh, kw], found {w}"))?;
        let fits = |whole: usize, window: usize, steps: usize| {
            window > 0 && window <= whole && self.stride > 0 && (whole - window) / self.stride + 1 == steps
        };
        if out != channels || !fits(self.height, kh, height) || !fits(self.width, kw, width) {
            let (to, stride) = (format!("{}x{}", self.height, self.width), self.stride);
            return Err(format!("a weight {w} with stride {stride} does not make {dy} of a feature map of {to}"));
        }
        Ok([batch, self.height, self.width, into].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (from, ws) = (&inputs[0].shape, &inputs[1].shape);
        let w = inputs[1].values();
        let (out, into, kh, kw) = (ws[0], ws[1], ws[2], ws[3]);
        // [ky][kx][out][in], so that the inner loop runs along the inputs.
        let mut taps = vec![0.0; w.len()];
        for o in 0..out {
            for i in 0..into {
                for tap in 0..kh * kw {
                    taps[(tap * out + o) * into + i] = w[(o * into + i) * kh * kw + tap];
                }
            }
        }
        output.fill(0.0);
        for (pixel, dy) in inputs[0].values().chunks_exact(out).enumerate() {
            let (b, oy, ox) = (pixel / (from[1] * from[2]), pixel / from[2] % from[1], pixel % from[2]);
            for (number, tap) in taps.chunks_exact(out * into).enumerate() {
                let (y, x) = (oy * self.stride + number / kw, ox * self.stride + number % kw);
                let at = ((b * shape[1] + y) * shape[2] + x) * into;
                let dx = &mut output[at..at + into];
                for (w, &dy) in tap.chunks_exact(into).zip(dy) {
                    for (dx, &w) in dx.iter_mut().zip(w) {
                        *dx += dy * w;
                    }
                }
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        2 * inputs[0].elements() as u64 * inputs[1][1..].iter().product::<usize>() as u64
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        lowering.no_kernel();
    }
}
