//! The texts that programs leave in their PNG files.
use std::collections::BTreeMap;
use std::path::Path;

use super::{Result, png_text};

/// The texts under these keywords; none in other files than PNG.
///
/// # Errors
/// A file that cannot be read or is damaged.
pub fn read(path: impl AsRef<Path>, keywords: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for chunk in png_text::read(path.as_ref(), keywords)?.unwrap_or_default() {
        texts.entry(chunk.keyword).or_insert(chunk.text);
    }
    Ok(texts)
}
