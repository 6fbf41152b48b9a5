//! Pictures from and to files.
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, Write};
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::png_text::{self, TextChunk};
use super::{Error, Parameters, Picture, Result, check_size};
use crate::file_kind::{FileKind, START};
use crate::output;

/// No picture file is larger; what is, is something else.
const MAX_FILE: u64 = 1 << 30;

impl Picture {
    /// Reads a PNG, JPEG, WebP or BMP file, told apart by content and turned upright by its EXIF
    /// orientation. Transparency is dropped, as diffusers does; 16 bits become 8.
    ///
    /// # Errors
    /// Names the file and says whether it cannot be read, is no picture, is damaged or has an
    /// absurd size.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let decoded = decode(path)?.to_rgb8();
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

/// Decodes any picture file, upright, after checking that its size is sane.
pub(super) fn decode(path: &Path) -> Result<DynamicImage> {
    let (bytes, format) = read(path)?;
    let mut decoder = decoder(path, &bytes, format)?;
    // A broken orientation is no reason to refuse a picture whose pixels are fine.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| damaged(path, reason(e)))?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// Width and height of a picture file, upright, by its header. No pixel is decoded, but a file that
/// was cut off is found.
///
/// # Errors
/// Those of [`Picture::open`] that the header tells.
pub fn measure(path: impl AsRef<Path>) -> Result<(u32, u32)> {
    let path = path.as_ref();
    let (bytes, format) = read(path)?;
    let mut decoder = decoder(path, &bytes, format)?;
    if format == ImageFormat::Png && png_is_cut(&bytes) {
        return Err(damaged(path, "it ends too early".into()));
    }
    let (width, height) = decoder.dimensions();
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    Ok(match decoder.orientation() {
        Ok(Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH) => (height, width),
        _ => (width, height),
    })
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged { path: path.to_path_buf(), reason }
}

/// The bytes of a picture file, and of which kind it is.
fn read(path: &Path) -> Result<(Vec<u8>, ImageFormat)> {
    let unreadable = |source| Error::Unreadable { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut reader = BufReader::new(file);
    // A folder can be opened, but not read.
    if reader.fill_buf().map_err(unreadable)?.is_empty() {
        return Err(damaged(path, "the file is empty".into()));
    }
    let start = reader.fill_buf().map_err(unreadable)?;
    let found = FileKind::of(start.get(..START).unwrap_or(start));
    let format = match found {
        FileKind::Png => ImageFormat::Png,
        FileKind::Jpeg => ImageFormat::Jpeg,
        FileKind::WebP => ImageFormat::WebP,
        FileKind::Bmp => ImageFormat::Bmp,
        _ => return Err(Error::NotAPicture { path: path.to_path_buf(), found }),
    };
    if length > MAX_FILE {
        return Err(damaged(
            path,
            format!("it has {} MiB, and no picture has more than {}", length >> 20, MAX_FILE >> 20),
        ));
    }
    let mut bytes = Vec::new();
    reader.rewind().and_then(|()| reader.read_to_end(&mut bytes)).map_err(unreadable)?;
    let cut = match format {
        ImageFormat::Jpeg => match jpeg_end(&bytes) {
            Some(end) => {
                bytes.truncate(end);
                false
            }
            None => true,
        },
        ImageFormat::WebP => webp_is_cut(&bytes),
        _ => false,
    };
    if cut {
        return Err(damaged(path, "it ends too early".into()));
    }
    Ok((bytes, format))
}

/// What decodes a file, after checking that its size is sane.
fn decoder<'a>(
    path: &Path,
    bytes: &'a [u8],
    format: ImageFormat,
) -> Result<impl ImageDecoder + 'a> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(Limits::no_limits());
    let decoder = reader.into_decoder().map_err(|e| damaged(path, reason(e)))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)
        .map_err(|e| Error::InFile { path: path.to_path_buf(), source: Box::new(e) })?;
    Ok(decoder)
}

/// Its chunks do not reach the last one, IEND, within the file.
fn png_is_cut(bytes: &[u8]) -> bool {
    let mut at = 8usize;
    loop {
        let Some(length) =
            bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|b| u32::from_be_bytes(*b))
        else {
            return true;
        };
        // Besides its data, a chunk has a length, a name and a checksum.
        let Some(next) = at.checked_add(length as usize).and_then(|end| end.checked_add(12)) else {
            return true;
        };
        if next > bytes.len() {
            return true;
        }
        if bytes.get(at + 4..at + 8) == Some(b"IEND") {
            return false;
        }
        at = next;
    }
}

fn reason(error: ImageError) -> String {
    match error {
        ImageError::Limits(_) => "it claims a size that no picture has".into(),
        other => other.to_string(),
    }
}

/// Where the first picture of a JPEG file ends. Phones append videos and further pictures, which
/// are none of it. The decoder fills what is missing with grey, so `None`: it has no end, or no
/// pixels.
fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    const START: u8 = 0xd8;
    const END: u8 = 0xd9;
    const SCAN: u8 = 0xda;
    let mut at = 0;
    let mut scans = 0;
    loop {
        // What stands between segments, as fill bytes do, and within a scan its pixels: there FF
        // comes before 00 or a restart.
        let mark = bytes
            .get(at..)?
            .windows(2)
            .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff | 0xd0..=0xd7))?;
        at += mark + 2;
        match *bytes.get(at - 1)? {
            END => return (scans > 0).then_some(at),
            START | 0x01 => {}
            marker => {
                let length = bytes.get(at..at + 2)?;
                scans += usize::from(marker == SCAN);
                at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

/// The decoder doesn't miss what follows the pixels; the header says how long the file is (RIFF:
/// bytes 4 to 7).
fn webp_is_cut(bytes: &[u8]) -> bool {
    let length = bytes.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    length.is_none_or(|length| u64::from(length) + 8 > bytes.len() as u64)
}

/// As [`output::write`], with the file's name in errors.
pub(super) fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    output::write(path, write)
        .map_err(|source| Error::Unwritable { path: path.to_path_buf(), source })
}
