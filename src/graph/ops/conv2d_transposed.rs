//! The gradient of a convolution with respect to its feature map: every output pixel gives back to
//! its window.
//!
//! It is a convolution itself, of the padded upstream gradient, without a stride: a stride s makes
//! s x s phases of channels, which are then spread over the pixels.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// Of dy padded so that every window fits, `[batch, h, w, out]`, and w `[out, in, kh, kw]`: the
/// convolution with w read backwards, `[batch, h - J + 1, w - I + 1, stride stride in]`, J and I
/// being the window's extents [`windows`].
#[derive(Debug)]
pub(crate) struct Conv2dTransposed {
    pub stride: usize,
}

/// Extents of the window over dy for a weight of `kernel`.
pub(crate) fn windows(kernel: [usize; 2], stride: usize) -> [usize; 2] {
    kernel.map(|extent| extent.div_ceil(stride))
}

impl Graph {
    /// The gradient of [`Graph::conv2d`] with respect to its `[batch, height, width, in]`: `dy` is
    /// `[batch, h, w, out]`, `w` `[out, in, kh, kw]`. Lines and columns that no window reached get
    /// zero.
    pub fn conv2d_transposed(
        &mut self,
        dy: Tensor,
        w: Tensor,
        stride: usize,
        height: usize,
        width: usize,
    ) -> Result<Tensor> {
        let ([batch, h, width_of_dy, channels], [out, into, kh, kw]) = self
            .shape(dy)
            .image()
            .and_then(|image| Ok((image, weight(self.shape(w))?)))
            .map_err(|message| self.shape_error("conv2d_transposed", message))?;
        let fits = |whole: usize, window: usize, steps: usize| {
            window > 0 && window <= whole && stride > 0 && (whole - window) / stride + 1 == steps
        };
        if out != channels || !fits(height, kh, h) || !fits(width, kw, width_of_dy) {
            let (dy, w) = (self.shape(dy), self.shape(w));
            let message = format!(
                "a weight {w} with stride {stride} does not make {dy} of a feature map of \
                    {height}x{width}"
            );
            return Err(self.shape_error("conv2d_transposed", message));
        }
        let [j, i] = windows([kh, kw], stride);
        let (lines, columns) = (height.div_ceil(stride), width.div_ceil(stride));
        let padded = match [j - 1, lines - h, i - 1, columns - width_of_dy] {
            [0, 0, 0, 0] => dy,
            edges => self.pad2d(dy, edges)?,
        };
        let mut dx = self.apply(Conv2dTransposed { stride }, &[padded, w])?;
        if stride > 1 {
            // [batch, lines, columns, (stride, stride, in)] to [batch, (lines, stride), (columns,
            // stride), in]
            let line = stride * into;
            let phases = (0..stride)
                .map(|phase| {
                    let phase = self.slice(dx, 3, phase * line, line)?;
                    self.reshape(phase, [batch * lines, 1, columns * line])
                })
                .collect::<Result<Vec<_>>>()?;
            dx = self.concat(&phases, 1)?;
            dx = self.reshape(dx, [batch, lines * stride, columns * stride, into])?;
        }
        self.crop(dx, [0, 0], [height, width])
    }
}

fn weight(w: &Shape) -> Result<[usize; 4], String> {
    <[usize; 4]>::try_from(&w[..])
        .map_err(|_| format!("expected a weight [out, in, kh, kw], found {w}"))
}

impl Operation for Conv2dTransposed {
    fn name(&self) -> &'static str {
        "conv2d_transposed"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [dy, w] = arity(inputs)?;
        let ([batch, height, width, channels], [out, into, kh, kw]) = (dy.image()?, weight(w)?);
        let [j, i] = windows([kh, kw], self.stride);
        if out != channels || j == 0 || i == 0 || j > height || i > width {
            return Err(format!(
                "a weight {w} with stride {} does not fit the upstream gradient {dy}",
                self.stride
            ));
        }
        Ok([batch, height - j + 1, width - i + 1, self.stride * self.stride * into].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (from, ws, stride) = (&inputs[0].shape, &inputs[1].shape, self.stride);
        let (dy, w) = (inputs[0].values(), inputs[1].values());
        let (out, into, kh, kw) = (ws[0], ws[1], ws[2], ws[3]);
        let [j, i] = windows([kh, kw], stride);
        // [ky][kx][out][in], so that the inner loop runs along the inputs.
        let mut taps = vec![0.0; w.len()];
        for o in 0..out {
            for c in 0..into {
                for tap in 0..kh * kw {
                    taps[(tap * out + o) * into + c] = w[(o * into + c) * kh * kw + tap];
                }
            }
        }
        for (pixel, dx) in output.chunks_exact_mut(stride * stride * into).enumerate() {
            let (b, y, x) =
                (pixel / (shape[1] * shape[2]), pixel / shape[2] % shape[1], pixel % shape[2]);
            dx.fill(0.0);
            for (tap, weights) in taps.chunks_exact(out * into).enumerate() {
                let (ky, kx) = (tap / kw, tap % kw);
                let phase = ky % stride * stride + kx % stride;
                let at =
                    ((b * from[1] + y + j - 1 - ky / stride) * from[2] + x + i - 1 - kx / stride)
                        * out;
                let dx = &mut dx[phase * into..(phase + 1) * into];
                for (&dy, weights) in dy[at..at + out].iter().zip(weights.chunks_exact(into)) {
                    for (dx, w) in dx.iter_mut().zip(weights) {
                        *dx += dy * w;
                    }
                }
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        2 * output.rows() as u64 * inputs[1].elements() as u64
    }

    fn can_crop(&self) -> bool {
        true
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
