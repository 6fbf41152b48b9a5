//! The texts that programs leave in their pictures: in PNG under keywords, in other formats in
//! EXIF.
use std::collections::BTreeMap;
use std::path::Path;

use image::ImageFormat;

use super::{Result, contents, exif, png_text};

/// The texts under these keywords. Those in EXIF have the keywords that they have in PNG; they are
/// read where there are none of PNG's own.
///
/// # Errors
/// A file that cannot be read, is no picture, or is damaged; texts of a size that none has; a
/// comment in an encoding that is not read.
pub fn read(path: impl AsRef<Path>, keywords: &[&str]) -> Result<BTreeMap<String, String>> {
    let path = path.as_ref();
    of_contents(path, contents::contents(path)?, keywords)
}

/// As [`read`], of what was found in a file.
pub(super) fn of_contents(
    path: &Path,
    found: contents::Contents,
    keywords: &[&str],
) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    if found.format == ImageFormat::Png {
        for chunk in png_text::read(path, &found.bytes, keywords)? {
            texts.entry(chunk.keyword).or_insert(chunk.text);
        }
    }
    if texts.is_empty()
        && let Some(block) = contents::exif(path, found)
    {
        texts = exif::texts(path, block)?;
        texts.retain(|keyword, _| keywords.contains(&keyword.as_str()));
    }
    Ok(texts)
}
