//! Masks: which part of a picture is painted anew.
use std::path::Path;

use super::{Error, Result, check_size, file};

/// How a mask changes its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scaling {
    /// The value at the same place, as torch's `interpolate(mode="nearest")`.
    Nearest,
    /// The mean of all values that a new one covers, as torch's `interpolate(mode="area")`.
    Area,
}

/// Values from 0 (black: keep) to 1 (white: paint anew), row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    width: u32,
    height: u32,
    values: Vec<f32>,
}

impl Mask {
    /// A mask of `width * height` values, clamped to 0..1.
    pub fn new(width: u32, height: u32, mut values: Vec<f32>) -> Result<Self> {
        check_size(width, height)?;
        if values.len() as u64 != u64::from(width) * u64::from(height) {
            return Err(Error::Values { width, height, channels: 1, found: values.len() });
        }
        let count = values.iter().filter(|v| !v.is_finite()).count();
        if count > 0 {
            return Err(Error::NotFinite { count, of: values.len() });
        }
        values.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
        Ok(Self { width, height, values })
    }

    /// Reads the grey values of any picture file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let grey = file::decode(path.as_ref())?.to_rgb8();
        // ITU-R BT.601, as Pillow's "L".
        let value = |p: &image::Rgb<u8>| {
            let [r, g, b] = p.0.map(f32::from);
            ((0.299 * r + 0.587 * g + 0.114 * b).round()) / 255.0
        };
        Self::new(grey.width(), grey.height(), grey.pixels().map(value).collect())
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    /// `[height, width]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The mask at another size: a picture's, or its latents'.
    pub fn resized(&self, width: u32, height: u32, scaling: Scaling) -> Result<Self> {
        check_size(width, height)?;
        let columns: Vec<_> = (0..width).map(|x| source(x, self.width, width, scaling)).collect();
        let mut values = Vec::with_capacity(width as usize * height as usize);
        for y in 0..height {
            let rows = source(y, self.height, height, scaling);
            for columns in &columns {
                let (mut sum, mut count) = (0.0f64, 0usize);
                for row in rows.clone() {
                    let start = row * self.width as usize;
                    let covered = self.values.get(start + columns.start..start + columns.end).unwrap_or_default();
                    sum += covered.iter().map(|v| f64::from(*v)).sum::<f64>();
                    count += covered.len();
                }
                values.push((sum / count.max(1) as f64) as f32);
            }
        }
        Self::new(width, height, values)
    }

    /// All values below `threshold` to 0, the others to 1.
    pub fn binarized(mut self, threshold: f32) -> Self {
        self.values.iter_mut().for_each(|v| *v = f32::from(*v >= threshold));
        self
    }
}

/// Which of `from` places the place `at` of `to` places takes its value from.
fn source(at: u32, from: u32, to: u32, scaling: Scaling) -> std::ops::Range<usize> {
    let (at, from, to) = (at as usize, from as usize, to as usize);
    let start = at * from / to;
    match scaling {
        Scaling::Nearest => start..start + 1,
        Scaling::Area => start..((at + 1) * from).div_ceil(to),
    }
}
