//! Feature maps of another size: nearest neighbours, their gradient, and means of squares.

use super::elementwise::{Padding, by_runs};
use super::epilogue::Epilogue;
use super::parallel::{MEMORY, Shared, pieces};
use super::simd::Level;

/// `x` `[batch, h, w, channels]` at `[batch, height, width, channels]`: output pixel `i` shows
/// input pixel `floor(i * h / height)`; then the epilogue, with zeros around if there is `padding`.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn upsample(
    level: Level,
    x: &[f32],
    [batch, h, w]: [usize; 3],
    [height, width]: [usize; 2],
    channels: usize,
    padding: Option<&Padding>,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    assert_eq!(x.len(), batch * h * w * channels);
    by_runs(level, batch * height * width, channels, padding, 0, epilogue, y, |first, y| {
        for (i, y) in y.chunks_exact_mut(channels).enumerate() {
            let pixel = first + i;
            let (b, oy, ox) = (pixel / (height * width), pixel / width % height, pixel % width);
            let at = ((b * h + oy * h / height) * w + ox * w / width) * channels;
            y.copy_from_slice(&x[at..at + channels]);
        }
    });
}

/// The gradient of [`upsample`]: `dy` `[batch, h, w, channels]` summed to
/// `[batch, height, width, channels]`.
pub fn upsample_gradient(
    dy: &[f32],
    [batch, h, w]: [usize; 3],
    [height, width]: [usize; 2],
    channels: usize,
    dx: &mut [f32],
) {
    assert!(dy.len() == batch * h * w * channels && dx.len() == batch * height * width * channels);
    // Pixel i is shown by those from ceil(i * h / height) on.
    let shown = |i: usize, to: usize, from: usize| (i * from).div_ceil(to);
    let target = Shared::new(dx);
    pieces(batch * height, dy.len() * MEMORY, |line| {
        let (b, y) = (line / height, line % height);
        let out = unsafe { target.part(line * width * channels, width * channels) };
        out.fill(0.0);
        for oy in shown(y, height, h)..shown(y + 1, height, h) {
            for (x, sums) in out.chunks_exact_mut(channels).enumerate() {
                for ox in shown(x, width, w)..shown(x + 1, width, w) {
                    let dy = &dy[((b * h + oy) * w + ox) * channels..][..channels];
                    for (sum, dy) in sums.iter_mut().zip(dy) {
                        *sum += dy;
                    }
                }
            }
        }
    });
}

/// Means of 2x2 pixels, fewer at the far edges; then the epilogue, with zeros around if there is
/// `padding`.
#[allow(clippy::too_many_arguments, reason = "a kernel's operands and sizes")]
pub fn average_pool(
    level: Level,
    x: &[f32],
    [batch, height, width]: [usize; 3],
    channels: usize,
    padding: Option<&Padding>,
    epilogue: &[Epilogue<'_>],
    y: &mut [f32],
) {
    assert_eq!(x.len(), batch * height * width * channels);
    let (lines, columns) = (height.div_ceil(2), width.div_ceil(2));
    by_runs(level, batch * lines * columns, channels, padding, 0, epilogue, y, |first, y| {
        for (i, y) in y.chunks_exact_mut(channels).enumerate() {
            let pixel = first + i;
            let b = pixel / (lines * columns);
            let (top, left) = (pixel / columns % lines * 2, pixel % columns * 2);
            let (bottom, right) = ((top + 2).min(height), (left + 2).min(width));
            y.fill(0.0);
            for at in (top..bottom).flat_map(|y| (left..right).map(move |x| (y, x))) {
                let x = &x[((b * height + at.0) * width + at.1) * channels..][..channels];
                for (y, x) in y.iter_mut().zip(x) {
                    *y += x;
                }
            }
            let share = 1.0 / ((bottom - top) * (right - left)) as f32;
            for y in y {
                *y *= share;
            }
        }
    });
}
