//! Masks: which part of a picture is painted anew.
use std::path::Path;

use super::contents::{contents_of, decode, decode_found};
use super::{Error, Result, check_size};

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
    /// Its file has transparency, which says something else than its colours.
    is_in_transparency: bool,
}

/// What of a mask is probably not as it was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The shape is in the file's transparency, which is not read.
    Transparent,
    /// White all over.
    White,
    /// Black all over.
    Black,
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Doubt::Transparent => {
                "has its shape in its transparency, which is not read: save it with white inside \
                    and black outside instead"
            }
            Doubt::White => "is white all over",
            Doubt::Black => "is black all over",
        })
    }
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
        Ok(Self { width, height, values, is_in_transparency: false })
    }

    /// Reads the grey values of any picture file. Transparency is dropped; see [`Mask::doubt`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::of_grey(decode(path.as_ref())?)
    }

    /// As [`Mask::open`], of a file that is in memory; errors call it by `name`.
    ///
    /// # Errors
    /// Those of [`Mask::open`].
    pub fn from_bytes(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self> {
        let name = name.as_ref();
        Self::of_grey(decode_found(name, contents_of(name, bytes)?)?)
    }

    /// What is transparent in a picture file that is in memory, 1 where nothing is seen; none where
    /// the file has no transparency. Errors call it by `name`.
    ///
    /// # Errors
    /// Those of [`Mask::open`].
    pub fn of_transparency(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Option<Self>> {
        let name = name.as_ref();
        let decoded = decode_found(name, contents_of(name, bytes)?)?;
        if !decoded.color().has_alpha() {
            return Ok(None);
        }
        let pixels = decoded.into_rgba8();
        let values = pixels.pixels().map(|p| 1.0 - f32::from(p.0[3]) / 255.0).collect();
        Self::new(pixels.width(), pixels.height(), values).map(Some)
    }

    fn of_grey(decoded: image::DynamicImage) -> Result<Self> {
        let has_alpha = decoded.color().has_alpha();
        let grey = decoded.into_rgba8();
        // ITU-R BT.601, as Pillow's "L".
        let value = |p: &image::Rgba<u8>| {
            let [r, g, b, _] = p.0.map(f32::from);
            ((0.299 * r + 0.587 * g + 0.114 * b).round()) / 255.0
        };
        let mut mask = Self::new(grey.width(), grey.height(), grey.pixels().map(value).collect())?;
        if has_alpha {
            let seen = |p: &image::Rgba<u8>| p.0[3] >= 128;
            let places = || grey.pixels().zip(&mask.values);
            let white_behind = places().any(|(p, v)| !seen(p) && *v >= 0.5);
            let black_before = grey.pixels().any(seen)
                && !grey.pixels().all(seen)
                && mask.values.iter().all(|v| *v < 0.5);
            mask.is_in_transparency = white_behind || black_before;
        }
        Ok(mask)
    }

    /// What is probably not as it was meant. A mask that is `hard` knows black and white alone.
    pub fn doubt(&self, hard: bool) -> Option<Doubt> {
        let (black, white) = if hard { (0.5, 0.5) } else { (f32::MIN_POSITIVE, 1.0) };
        if self.is_in_transparency {
            return Some(Doubt::Transparent);
        }
        if self.values.iter().all(|v| *v >= white) {
            return Some(Doubt::White);
        }
        self.values.iter().all(|v| *v < black).then_some(Doubt::Black)
    }

    /// In pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// In pixels.
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
                    let covered = self
                        .values
                        .get(start + columns.start..start + columns.end)
                        .unwrap_or_default();
                    sum += covered.iter().map(|v| f64::from(*v)).sum::<f64>();
                    count += covered.len();
                }
                values.push((sum / count.max(1) as f64) as f32);
            }
        }
        Self::new(width, height, values)
    }

    /// What part of the mask's white lies in white cells of `cells`, the same mask at another size;
    /// none where nothing is white.
    pub fn seen(&self, cells: &Mask) -> Option<f64> {
        let (width, height) = (self.width as usize, self.height as usize);
        let [columns, rows] = [cells.width as usize, cells.height as usize];
        let (mut white, mut seen) = (0usize, 0usize);
        for (y, line) in self.values.chunks_exact(width.max(1)).enumerate() {
            let row = y * rows / height * columns;
            for (x, _) in line.iter().enumerate().filter(|(_, value)| **value >= 0.5) {
                white += 1;
                let cell = cells.values.get(row + x * columns / width);
                seen += usize::from(cell.is_some_and(|cell| *cell >= 0.5));
            }
        }
        (white > 0).then(|| seen as f64 / white as f64)
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
