//! The weight of a convolution as that of the convolution which is its gradient:
//! [`Layout::Transposed`](super::Layout::Transposed).

use std::ops::Range;

use super::layout::PANEL;
use crate::graph::Shape;

/// How the weight `[out, in, kh, kw]` of a convolution of `stride` is read backwards. Pixel (s Y +
/// p, s X + q) of the gradient sums `dy[Y - j, X - i] w[.., p + s j, q + s i]`: for each of s x s
/// phases (p, q) a convolution of dy without any stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transposed {
    out: usize,
    into: usize,
    kernel: [usize; 2],
    stride: usize,
}

impl Transposed {
    pub fn of(shape: &Shape, stride: usize) -> Transposed {
        let extent = |i: usize| shape.get(i).copied().unwrap_or(1);
        Transposed {
            out: extent(0),
            into: extent(1),
            kernel: [extent(2), extent(3)],
            stride: stride.max(1),
        }
    }

    /// Height and width of the window over dy.
    pub fn window(&self) -> [usize; 2] {
        self.kernel.map(|extent| extent.div_ceil(self.stride))
    }

    fn panels(&self) -> usize {
        (self.stride * self.stride * self.into).div_ceil(PANEL)
    }

    /// Elements of the panels `[stride stride in / 64][taps][out][64]`.
    pub fn elements(&self) -> usize {
        let [height, width] = self.window();
        self.panels() * height * width * self.out * PANEL
    }

    /// Elements of one of `out` as the file has them.
    pub fn row(&self) -> usize {
        self.into * self.kernel[0] * self.kernel[1]
    }

    /// Rearranges the elements `values` of the outputs `rows`: calls `put` with each run of panels'
    /// elements and where it starts.
    pub fn rearrange<E>(
        &self,
        rows: Range<usize>,
        values: &[f32],
        mut put: impl FnMut(usize, &[f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        let ([kh, kw], [height, width], stride) = (self.kernel, self.window(), self.stride);
        let mut run = vec![0.0; rows.len() * PANEL];
        for panel in 0..self.panels() {
            for tap in 0..height * width {
                // The window is read from its far end.
                let (j, i) = (height - 1 - tap / width, width - 1 - tap % width);
                for o in 0..PANEL {
                    let column = panel * PANEL + o;
                    let (phase, channel) = (column / self.into, column % self.into);
                    let (y, x) = (phase / stride + stride * j, phase % stride + stride * i);
                    let exists = phase < stride * stride && y < kh && x < kw;
                    let from = (channel * kh + y) * kw + x;
                    for (to, row) in
                        run[o..].iter_mut().step_by(PANEL).zip(values.chunks_exact(self.row()))
                    {
                        *to = if exists { row[from] } else { 0.0 };
                    }
                }
                put(((panel * height * width + tap) * self.out + rows.start) * PANEL, &run)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        for (shape, stride) in [
            (Shape::from([5, 70, 3, 3]), 1),
            ([6, 20, 3, 3].into(), 2),
            ([4, 3, 4, 4].into(), 4),
            ([7, 130].into(), 1),
        ] {
            let layout = Transposed::of(&shape, stride);
            let values: Vec<f32> = (0..shape.elements()).map(|i| i as f32 + 1.0).collect();
            let fill = |step: usize| {
                let mut panels = vec![f32::NAN; layout.elements()];
                for first in (0..shape[0]).step_by(step) {
                    let rows = first..shape[0].min(first + step);
                    let part = &values[first * layout.row()..rows.end * layout.row()];
                    let put = |at: usize, run: &[f32]| {
                        panels[at..at + run.len()].copy_from_slice(run);
                        Ok::<(), ()>(())
                    };
                    layout.rearrange(rows, part, put).unwrap();
                }
                panels
            };
            let whole = fill(shape[0]);
            assert_eq!(whole, fill(2));
            // Every weight stands there once, all else is zero.
            let mut found: Vec<f32> = whole.into_iter().filter(|v| *v != 0.0).collect();
            found.sort_by(f32::total_cmp);
            assert_eq!(found, values, "{shape} with stride {stride}");
        }
    }
}
