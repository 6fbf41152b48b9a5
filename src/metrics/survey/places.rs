//! Where a survey's files stand in its folder, and pictures as sheets show them.

use std::path::{Path, PathBuf};

use super::Item;
use crate::picture::Picture;

/// The file of the pictures that a concept was trained from, among its pictures.
pub(super) const REFERENCES: &str = "references";
/// The longest side of a picture on a sheet.
const SIDE: u32 = 192;

pub(super) fn path(folder: &Path, item: &Item) -> PathBuf {
    folder.join(format!("{}.png", item.file))
}

pub(super) fn record_path(folder: &Path, item: &Item) -> PathBuf {
    folder.join(format!("{}.json", item.file))
}

/// A picture as sheets show it.
pub(super) fn small(picture: &Picture) -> crate::picture::Result<Picture> {
    let (width, height) = (picture.width(), picture.height());
    let longest = width.max(height);
    if longest <= SIDE {
        return Ok(picture.clone());
    }
    let fitted = |side: u32| (u64::from(side) * u64::from(SIDE) / u64::from(longest)).max(1) as u32;
    picture.resized_bicubic(fitted(width), fitted(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_become_small_ones() {
        let wide = small(&Picture::filled(768, 512, [1, 2, 3]).unwrap()).unwrap();
        assert_eq!((wide.width(), wide.height()), (192, 128));
        assert_eq!(small(&wide).unwrap(), wide);
    }
}
