//! Edges of a picture, white on black: what networks that steer by outlines take.
use super::{Picture, Result};

/// Gradients, in steps of an 8-bit grey value, from which on an edge counts, and from which on it
/// counts beside a stronger one: what ControlNets for edges were trained with.
pub const CANNY_THRESHOLDS: [f32; 2] = [200.0, 100.0];
/// Length of the gradient from which on a pixel belongs to an [`outline`](Picture::outline).
const OUTLINE: f32 = 0.12;

impl Picture {
    /// Canny's edges (1986), one pixel wide: Sobel's gradients (the sum of both magnitudes) that
    /// are largest across the edge, above `strong`, or above `weak` and connected to such.
    ///
    /// # Errors
    /// None that a picture could cause.
    pub fn canny(&self, strong: f32, weak: f32) -> Result<Picture> {
        let (width, height) = (self.width as usize, self.height as usize);
        let grey = self.grey();
        let at = |x: isize, y: isize| {
            let (x, y) =
                (x.clamp(0, width as isize - 1) as usize, y.clamp(0, height as isize - 1) as usize);
            grey.get(y * width + x).copied().unwrap_or(0.0)
        };
        let gradient = |i: usize| {
            let (x, y) = ((i % width) as isize, (i / width) as isize);
            let column = |x| at(x, y - 1) + 2.0 * at(x, y) + at(x, y + 1);
            let row = |y| at(x - 1, y) + 2.0 * at(x, y) + at(x + 1, y);
            [column(x + 1) - column(x - 1), row(y + 1) - row(y - 1)]
        };
        let gradients: Vec<[f32; 2]> = (0..width * height).map(gradient).collect();
        let length = |x: isize, y: isize| {
            let inside = (0..width as isize).contains(&x) && (0..height as isize).contains(&y);
            let found = if inside { gradients.get(y as usize * width + x as usize) } else { None };
            found.map_or(0.0, |[dx, dy]| dx.abs() + dy.abs())
        };
        // Largest across the edge, in one of four directions; of two equal ones the first counts.
        let ridge = |i: usize| {
            let (x, y) = ((i % width) as isize, (i / width) as isize);
            let [dx, dy] = gradients[i];
            let here = dx.abs() + dy.abs();
            // tan of 22.5 degrees and of 67.5.
            let (stepx, stepy) = match () {
                () if dy.abs() < 0.414_213_56 * dx.abs() => (1, 0),
                () if dy.abs() > 2.414_213_6 * dx.abs() => (0, 1),
                () if (dx < 0.0) == (dy < 0.0) => (1, 1),
                () => (-1, 1),
            };
            here > length(x - stepx, y - stepy) && here >= length(x + stepx, y + stepy)
        };
        let mut level: Vec<u8> = (0..width * height)
            .map(|i| {
                let [dx, dy] = gradients[i];
                let length = dx.abs() + dy.abs();
                if length <= weak || !ridge(i) { 0 } else { 1 + u8::from(length > strong) }
            })
            .collect();
        let mut open: Vec<usize> = (0..level.len()).filter(|&i| level[i] == 2).collect();
        while let Some(i) = open.pop() {
            let (x, y) = (i % width, i / width);
            for y in y.saturating_sub(1)..(y + 2).min(height) {
                for x in x.saturating_sub(1)..(x + 2).min(width) {
                    if level[y * width + x] == 1 {
                        level[y * width + x] = 2;
                        open.push(y * width + x);
                    }
                }
            }
        }
        self.black_and_white(level.iter().map(|level| *level == 2))
    }

    /// Outlines as the model that ships was taught: where, in a picture of 0 to 1 softened by 1-2-1
    /// in both directions, the gradient (central differences) of any colour channel is at least
    /// 0.12 long.
    ///
    /// # Errors
    /// None that a picture could cause.
    pub fn outline(&self) -> Result<Picture> {
        let (width, height) = (self.width as isize, self.height as isize);
        let value = |x: isize, y: isize, c: usize| {
            let i = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)) as usize * 3 + c;
            f32::from(self.rgb.get(i).copied().unwrap_or(0)) / 255.0
        };
        // The picture goes on by two pixels of its edge before it is softened.
        let row = |x, y, c| (value(x - 1, y, c) + 2.0 * value(x, y, c) + value(x + 1, y, c)) / 4.0;
        let soft = |x, y, c| (row(x, y - 1, c) + 2.0 * row(x, y, c) + row(x, y + 1, c)) / 4.0;
        let edge = |i: isize| {
            let (x, y) = (i % width, i / width);
            (0..3).any(|c| {
                let across = (soft(x + 1, y, c) - soft(x - 1, y, c)) / 2.0;
                let down = (soft(x, y + 1, c) - soft(x, y - 1, c)) / 2.0;
                across * across + down * down >= OUTLINE * OUTLINE
            })
        };
        self.black_and_white((0..width * height).map(edge))
    }

    /// Grey values from 0 to 255, by ITU-R BT.601.
    pub fn grey(&self) -> Vec<f32> {
        let grey = |p: &[u8]| match p {
            [r, g, b] => {
                (0.299 * f32::from(*r) + 0.587 * f32::from(*g) + 0.114 * f32::from(*b)).round()
            }
            _ => 0.0,
        };
        self.rgb.chunks_exact(3).map(grey).collect()
    }

    fn black_and_white(&self, white: impl Iterator<Item = bool>) -> Result<Picture> {
        Picture::new(
            self.width,
            self.height,
            white.flat_map(|white| [if white { 255 } else { 0 }; 3]).collect(),
        )
    }
}
