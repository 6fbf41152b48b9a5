//! What a picture file holds: the one place where picture files are opened. Whatever a file claims
//! is checked before memory is taken or work is done for it.
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::png_chunks;
use super::{Error, MAX_PIXELS, Result, check_size};
use crate::file_kind::{FileKind, START};

/// No picture file is larger; what is, is something else.
const MAX_FILE: u64 = 1 << 30;
/// What a decoder may take besides: every pixel at its largest, 4 channels of 16 bits, and rows and
/// tables.
const MAX_DECODED: u64 = MAX_PIXELS * 8 + (64 << 20);

/// A picture file's bytes, and of which kind it is.
pub(super) struct Contents {
    pub bytes: Vec<u8>,
    pub format: ImageFormat,
}

/// The bytes of a picture file; that it is whole is not checked.
pub(super) fn contents(path: &Path) -> Result<Contents> {
    let unreadable = |source| Error::Unreadable { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut reader = BufReader::new(file);
    // A folder can be opened, but not read.
    if reader.fill_buf().map_err(unreadable)?.is_empty() {
        return Err(damaged(path, "the file is empty".into()));
    }
    let format = format(path, reader.fill_buf().map_err(unreadable)?)?;
    let mut bytes = Vec::new();
    // A pipe or a file that grows has no length to go by.
    let mut limited = reader.by_ref().take(MAX_FILE + 1);
    if length <= MAX_FILE {
        limited.read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if length > MAX_FILE || bytes.len() as u64 > MAX_FILE {
        let most = MAX_FILE >> 20;
        return Err(damaged(path, format!("it has more than the {most} MiB of any picture")));
    }
    Ok(Contents { bytes, format })
}

/// The format of a picture file that begins like this.
fn format(path: &Path, start: &[u8]) -> Result<ImageFormat> {
    match FileKind::of(start.get(..START).unwrap_or(start)) {
        FileKind::Png => Ok(ImageFormat::Png),
        FileKind::Jpeg => Ok(ImageFormat::Jpeg),
        FileKind::WebP => Ok(ImageFormat::WebP),
        FileKind::Bmp => Ok(ImageFormat::Bmp),
        found => Err(Error::NotAPicture { path: path.to_path_buf(), found }),
    }
}

/// As [`contents`], of a file that is in memory; errors call it by `name`.
pub(super) fn contents_of(name: &Path, bytes: Vec<u8>) -> Result<Contents> {
    if bytes.is_empty() {
        return Err(damaged(name, "the file is empty".into()));
    }
    Ok(Contents { format: format(name, &bytes)?, bytes })
}

/// What is found in a file that is whole, and no more of it than the picture.
fn whole(path: &Path, mut found: Contents) -> Result<Contents> {
    let is_cut = match found.format {
        ImageFormat::Jpeg => match jpeg_end(&found.bytes) {
            Some(end) => {
                found.bytes.truncate(end);
                false
            }
            None => true,
        },
        ImageFormat::WebP => webp_is_cut(&found.bytes),
        ImageFormat::Png => {
            png_chunks::keep_pixels(&mut found.bytes);
            false
        }
        _ => false,
    };
    if is_cut {
        return Err(damaged(path, "it ends too early".into()));
    }
    Ok(found)
}

/// Decodes any picture file, upright, after checking that its size is sane.
pub(super) fn decode(path: &Path) -> Result<DynamicImage> {
    decode_found(path, contents(path)?)
}

/// As [`decode`], of what was found in a file.
pub(super) fn decode_found(path: &Path, found: Contents) -> Result<DynamicImage> {
    let Contents { bytes, format } = whole(path, found)?;
    let mut decoder = decoder(path, &bytes, format)?;
    let orientation = orientation(&mut decoder);
    check_memory(path, decoder.total_bytes())?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| damaged(path, reason(e)))?;
    drop(bytes);
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    Ok(picture)
}

/// Width and height of a picture file, upright, by its header. No pixel is decoded, but a file that
/// was cut off is found.
///
/// # Errors
/// Those of [`super::Picture::open`] that the header tells.
pub fn measure(path: impl AsRef<Path>) -> Result<(u32, u32)> {
    let path = path.as_ref();
    let Contents { bytes, format } = whole(path, contents(path)?)?;
    let mut decoder = decoder(path, &bytes, format)?;
    if format == ImageFormat::Png && png_chunks::is_cut(&bytes) {
        return Err(damaged(path, "it ends too early".into()));
    }
    let (width, height) = decoder.dimensions();
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    Ok(match orientation(&mut decoder) {
        Some(Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH) => (height, width),
        _ => (width, height),
    })
}

/// Width and height that the header of a picture file in memory claims, as it lies; errors call it
/// by `name`.
///
/// # Errors
/// Those of [`super::Picture::open`] that the header tells.
pub fn measure_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<(u32, u32)> {
    let name = name.as_ref();
    Ok(decoder(name, bytes, format(name, bytes)?)?.dimensions())
}

/// How the picture stands. A broken orientation is no reason to refuse a picture whose pixels are
/// fine.
fn orientation(decoder: &mut impl ImageDecoder) -> Option<Orientation> {
    Orientation::from_exif_chunk(plain_exif(&decoder.exif_metadata().ok()??))
}

/// An EXIF block without the mark that stands before it in JPEG, which some programs write in WebP
/// too.
fn plain_exif(block: &[u8]) -> &[u8] {
    block.strip_prefix(b"Exif\0\0").unwrap_or(block)
}

/// The EXIF block of a picture file; none where it has none that can be made out.
pub(super) fn exif(path: &Path, contents: Contents) -> Option<Vec<u8>> {
    let Contents { mut bytes, format } = contents;
    match format {
        ImageFormat::Png => png_chunks::keep_pixels(&mut bytes),
        ImageFormat::WebP if webp_is_cut(&bytes) => return None,
        _ => {}
    }
    let block = decoder(path, &bytes, format).ok()?.exif_metadata().ok()??;
    Some(plain_exif(&block).to_vec())
}

/// What decodes a file, after checking that its size is sane.
fn decoder<'a>(
    path: &Path,
    bytes: &'a [u8],
    format: ImageFormat,
) -> Result<impl ImageDecoder + 'a> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| damaged(path, reason(e)))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)
        .map_err(|e| Error::InFile { path: path.to_path_buf(), source: Box::new(e) })?;
    Ok(decoder)
}

/// Whether there is memory for a picture's pixels. Where there is not, the decoder would end the
/// program without a word about the file.
fn check_memory(path: &Path, bytes: u64) -> Result<()> {
    let fits = usize::try_from(bytes).is_ok_and(|bytes| {
        // Twice: as it is decoded, and as it is read by what follows.
        Vec::<u8>::new().try_reserve_exact(bytes.saturating_mul(2)).is_ok()
    });
    if !fits {
        return Err(Error::NoMemory { path: path.to_path_buf(), bytes });
    }
    Ok(())
}

fn damaged(path: &Path, reason: String) -> Error {
    Error::Damaged { path: path.to_path_buf(), reason }
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

/// The decoder doesn't miss what follows the pixels, and takes memory for whatever length a chunk
/// claims; the header says how long the file is (RIFF: bytes 4 to 7), and each chunk how long it
/// is.
fn webp_is_cut(bytes: &[u8]) -> bool {
    let number = |at: usize| {
        let found = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
        found.map(|bytes| u32::from_le_bytes(*bytes) as usize)
    };
    let Some(end) = number(4).and_then(|length| length.checked_add(8)) else { return true };
    if end > bytes.len() {
        return true;
    }
    let mut at = 12usize;
    while at + 8 <= end {
        let length = number(at.saturating_add(4)).and_then(|length| length.checked_add(8));
        let Some(next) = length.and_then(|length| at.checked_add(length)) else { return true };
        if next > bytes.len() {
            return true;
        }
        // Each begins at an even place.
        at = next + next % 2;
    }
    false
}
