//! Pictures in files and in memory: reading, writing with the settings that made them, masks,
//! contact sheets.
//!
//! A [`Picture`] is 8-bit RGB. Models see it as `[height * width, 3]` values from -1 to 1; see
//! [`Picture::to_model`].
mod contents;
pub mod edges;
mod exif;
mod file;
mod font;
mod mask;
pub mod parameters;
mod plot;
mod png_chunks;
mod png_text;
pub(crate) mod resample;
mod sheet;
pub(crate) mod texts;

use std::path::PathBuf;

use image::imageops::FilterType;
use image::{ImageBuffer, Rgb};

use crate::file_kind::FileKind;

pub use contents::{measure, measure_bytes};
pub use file::check_destination;
pub use mask::{Doubt, Mask, Scaling};
pub use parameters::Parameters;
pub use plot::{Line, Plot};
pub use sheet::Sheet;

/// The longest side of a picture that is read or made.
pub const MAX_SIDE: u32 = 16384;
/// The most pixels that a picture has (a square of about 11500).
pub const MAX_PIXELS: u64 = 1 << 27;

/// What can go wrong with pictures and their files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system cannot read the file.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The system cannot write the file.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A name of another kind of picture than what is written.
    #[error("{}: pictures are written as PNG, so the name should end in .png", path.display())]
    NotPng {
        /// The file or folder.
        path: PathBuf,
    },
    #[error("{}: not a picture that this program reads (PNG, JPEG, WebP, BMP): this is \
        {}", path.display(), found.describe())]
    /// A file of another kind.
    NotAPicture {
        /// The file or folder.
        path: PathBuf,
        /// What it is.
        found: FileKind,
    },
    /// A picture that cannot be decoded to its end.
    #[error("{}: the picture is damaged or cut short: {reason}", path.display())]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A picture for which the system gives no memory.
    #[error("{}: a picture that takes {} MiB, for which there is no memory", path.display(),
        bytes.div_ceil(1 << 20))]
    NoMemory {
        /// The file or folder.
        path: PathBuf,
        /// Bytes of its pixels.
        bytes: u64,
    },
    /// What is wrong with a picture, with the file that it is from.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A picture larger than any that is made or read, or of no pixels.
    #[error(
        "a picture of {width} x {height} pixels: sides go from 1 to {MAX_SIDE}, with at most \
            {MAX_PIXELS} pixels in all"
    )]
    Size {
        /// In pixels.
        width: u64,
        /// In pixels.
        height: u64,
    },
    /// Values that are not as many as the pixels.
    #[error("{found} values for a picture of {width} x {height} with {channels} channels")]
    Values {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// Values that each pixel has.
        channels: usize,
        /// Values that there are.
        found: usize,
    },
    /// Values that are no numbers, where a picture is to be made.
    #[error("{count} of the picture's {of} values are not finite numbers")]
    NotFinite {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// Two pictures of different sizes cannot be compared.
    #[error("pictures of {} x {} and {} x {} cannot be compared", a.0, a.1, b.0, b.1)]
    Different {
        /// Width and height of one.
        a: (u32, u32),
        /// Width and height of the other.
        b: (u32, u32),
    },
    /// A sheet of no pictures.
    #[error("a contact sheet of no pictures")]
    EmptySheet,
    /// Text in a picture's file that cannot be read or written.
    #[error("{}: the text \"{keyword}\" in it is damaged: {reason}", path.display())]
    Text {
        /// The file or folder.
        path: PathBuf,
        /// As PNG calls the text.
        keyword: String,
        /// What is wrong.
        reason: String,
    },
}

/// Of the calls of pictures.
pub type Result<T> = std::result::Result<T, Error>;

/// An 8-bit RGB picture: rows from the top, three bytes per pixel. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Picture({} x {})", self.width, self.height)
    }
}

impl Picture {
    /// A picture of `width * height * 3` bytes.
    pub fn new(width: u32, height: u32, rgb: Vec<u8>) -> Result<Self> {
        check_size(width, height)?;
        if rgb.len() as u64 != u64::from(width) * u64::from(height) * 3 {
            return Err(Error::Values { width, height, channels: 3, found: rgb.len() });
        }
        Ok(Self { width, height, rgb })
    }

    /// A picture of one colour.
    pub fn filled(width: u32, height: u32, colour: [u8; 3]) -> Result<Self> {
        check_size(width, height)?;
        Self::new(width, height, colour.repeat(width as usize * height as usize))
    }

    /// In pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// In pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The colour at a place, if it is in the picture.
    pub fn pixel(&self, x: u32, y: u32) -> Option<[u8; 3]> {
        let at = (y as usize * self.width as usize + x as usize) * 3;
        (x < self.width).then(|| self.rgb.get(at..at + 3)?.try_into().ok())?
    }

    /// The picture at another size, by Lanczos' filter (3 lobes); proportions are the caller's
    /// business.
    pub fn resized(&self, width: u32, height: u32) -> Result<Self> {
        check_size(width, height)?;
        if (width, height) == (self.width, self.height) {
            return Ok(self.clone());
        }
        let found = self.rgb.len();
        let buffer =
            ImageBuffer::<Rgb<u8>, _>::from_raw(self.width, self.height, self.rgb.as_slice())
                .ok_or(Error::Values {
                    width: self.width,
                    height: self.height,
                    channels: 3,
                    found,
                })?;
        let resized = image::imageops::resize(&buffer, width, height, FilterType::Lanczos3);
        Self::new(width, height, resized.into_raw())
    }

    /// The rectangle of `width` x `height` pixels whose upper left corner is at `x`, `y`.
    ///
    /// # Errors
    /// A rectangle that is empty or reaches beyond the picture.
    pub fn part(&self, x: u32, y: u32, width: u32, height: u32) -> Result<Self> {
        let beyond = |from: u32, length: u32, side: u32| {
            u64::from(from) + u64::from(length) > u64::from(side)
        };
        if beyond(x, width, self.width) || beyond(y, height, self.height) {
            return Err(Error::Different {
                a: (x.saturating_add(width), y.saturating_add(height)),
                b: (self.width, self.height),
            });
        }
        let rows =
            self.rgb.chunks_exact(self.width as usize * 3).skip(y as usize).take(height as usize);
        let columns = x as usize * 3..(x + width) as usize * 3;
        Self::new(
            width,
            height,
            rows.filter_map(|row| row.get(columns.clone())).flatten().copied().collect(),
        )
    }

    /// What a model's encoder takes: `[height * width, 3]`, 0 becoming -1 and 255 becoming 1.
    pub fn to_model(&self) -> Vec<f32> {
        self.rgb.iter().map(|v| 2.0 * (f32::from(*v) / 255.0) - 1.0).collect()
    }

    /// From what a model's decoder gives, `[height * width, 3]`: -1 becomes 0 and 1 becomes 255,
    /// what lies beyond is clamped, halves are rounded to even, as diffusers does.
    ///
    /// # Errors
    /// A wrong number of values; values that are no numbers.
    pub fn from_model(values: &[f32], width: u32, height: u32) -> Result<Self> {
        let count = values.iter().filter(|v| !v.is_finite()).count();
        if count > 0 {
            return Err(Error::NotFinite { count, of: values.len() });
        }
        let byte = |v: &f32| ((v / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        Self::new(width, height, values.iter().map(byte).collect())
    }
}

/// The peak signal-to-noise ratio between two pictures in dB, over all channels; infinite if they
/// are the same.
///
/// # Errors
/// Pictures of different sizes.
pub fn psnr(a: &Picture, b: &Picture) -> Result<f64> {
    let (sizes_a, sizes_b) = ((a.width, a.height), (b.width, b.height));
    if sizes_a != sizes_b {
        return Err(Error::Different { a: sizes_a, b: sizes_b });
    }
    let square = |(a, b): (&u8, &u8)| (f64::from(*a) - f64::from(*b)).powi(2);
    let mean = a.rgb.iter().zip(&b.rgb).map(square).sum::<f64>() / a.rgb.len() as f64;
    Ok(10.0 * (255.0 * 255.0 / mean).log10())
}

fn check_size(width: u32, height: u32) -> Result<()> {
    let (w, h) = (u64::from(width), u64::from(height));
    if w == 0 || h == 0 || width > MAX_SIDE || height > MAX_SIDE || w * h > MAX_PIXELS {
        return Err(Error::Size { width: w, height: h });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
