//! Pictures from and to files.
use std::io::Write;
use std::path::Path;

use image::ImageFormat;

use super::contents::{contents_of, decode, decode_found};
use super::png_text::{self, TextChunk};
use super::{Error, Parameters, Picture, Result};
use crate::output;

impl Picture {
    /// Reads a PNG, JPEG, WebP or BMP file, told apart by content and turned upright by its EXIF
    /// orientation. Transparency is dropped, as diffusers does; 16 bits become 8.
    ///
    /// # Errors
    /// Names the file and says whether it cannot be read, is no picture, is damaged or has an
    /// absurd size.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let decoded = decode(path)?.into_rgb8();
        Self::new(decoded.width(), decoded.height(), decoded.into_raw())
    }

    /// As [`Picture::open`], of a file that is in memory; errors call it by `name`.
    ///
    /// # Errors
    /// Those of [`Picture::open`].
    pub fn from_bytes(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self> {
        let name = name.as_ref();
        let decoded = decode_found(name, contents_of(name, bytes)?)?.into_rgb8();
        Self::new(decoded.width(), decoded.height(), decoded.into_raw())
    }

    /// Writes a PNG file, with the settings that made the picture if they are given. The file
    /// appears under its name only when it is complete; on failure nothing is left behind and an
    /// older file stays as it was.
    ///
    /// # Errors
    /// A name that belongs to another format; a folder that is missing or closed to us; a full
    /// disk.
    pub fn save(&self, path: impl AsRef<Path>, parameters: Option<&Parameters>) -> Result<()> {
        let path = path.as_ref();
        check_name(path)?;
        let text = parameters.map(Parameters::to_chunks).unwrap_or_default();
        write_atomically(path, |out| self.write_png(out, &text))
    }

    /// Writes the picture as PNG to `out`, with the settings that made it if they are given.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(
        &self,
        out: &mut dyn Write,
        parameters: Option<&Parameters>,
    ) -> std::io::Result<()> {
        self.write_png(out, &parameters.map(Parameters::to_chunks).unwrap_or_default())
    }

    /// Writes the picture as PNG to `out`.
    pub(super) fn write_png(&self, out: &mut dyn Write, text: &[TextChunk]) -> std::io::Result<()> {
        let as_io = |e: png::EncodingError| match e {
            png::EncodingError::IoError(e) => e,
            other => std::io::Error::other(other),
        };
        let mut encoder = png::Encoder::new(out, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        png_text::add(&mut encoder, text).map_err(as_io)?;
        let mut writer = encoder.write_header().map_err(as_io)?;
        writer.write_image_data(&self.rgb).map_err(as_io)?;
        writer.finish().map_err(as_io)
    }
}

/// Whether a picture could be saved there, as far as can be told before there is one.
///
/// # Errors
/// Those of [`Picture::save`].
pub fn check_destination(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    check_name(path)?;
    output::check(path).map_err(|source| Error::Unwritable { path: path.to_path_buf(), source })
}

fn check_name(path: &Path) -> Result<()> {
    let other = path.extension().and_then(ImageFormat::from_extension);
    if other.is_some_and(|format| format != ImageFormat::Png) {
        return Err(Error::NotPng { path: path.to_path_buf() });
    }
    Ok(())
}

/// As [`output::write`], with the file's name in errors.
pub(super) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    output::write(path, write)
        .map_err(|source| Error::Unwritable { path: path.to_path_buf(), source })
}
