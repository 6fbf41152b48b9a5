//! The pictures' folders: what is in them, and all that is wrong with it at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::captions::PLACEHOLDER;
use super::config::{PictureFolder, Settings};
use crate::picture::{Doubt, Mask, Picture, Scaling};

/// Endings of files that are taken for pictures; what they are is told by their contents.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];
/// Endings of mask files that stand beside their pictures.
const MASK_MARK: &str = ".mask";
/// Sides shorter than this share of what is tuned at show no details.
const TINY: f64 = 0.25;
/// Two pictures whose small versions differ by less than this (of 255, on average) are the same picture.
const SAME: f64 = 1.5;
/// Side of those small versions.
const THUMBNAIL: u32 = 16;

/// One picture, with what belongs to it.
#[derive(Clone, Debug)]
pub struct Found {
    pub path: PathBuf,
    pub picture: Picture,
    /// [`PLACEHOLDER`] where the concept's words go.
    pub caption: String,
    pub mask: Option<Mask>,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    pub found: Vec<Found>,
    /// What has to be put right before a run.
    pub problems: Vec<String>,
    /// What the user should know.
    pub remarks: Vec<String>,
    /// SHA-256 over pictures, captions and masks, in order.
    pub hash: [u8; 32],
}

/// Number of pictures in a folder.
pub fn count(folder: &Path) -> usize {
    pictures_in(folder).map_or(0, |found| found.len())
}

/// Looks at everything in the settings' folders. `size` is what is tuned at, width and height.
pub fn check(settings: &Settings, size: [usize; 2]) -> Checked {
    let mut checked = Checked::default();
    for folder in &settings.folders {
        check_folder(folder, settings, &mut checked);
    }
    let count = checked.found.len();
    if checked.problems.is_empty() && count < 4 {
        checked.remarks.push(format!("{count} pictures are few: 4 to 20 from different sides and in different places are best"));
    }
    sizes(&mut checked, size);
    duplicates(&mut checked);
    let masked = checked.found.iter().filter(|found| found.mask.is_some()).count();
    if masked > 0 && masked < count {
        checked.remarks.push(format!("{} of {count} pictures have no mask: all of them counts", count - masked));
    }
    for (doubt, so) in [(Doubt::Transparent, ""), (Doubt::White, ": all of the picture counts as the concept")] {
        let is_it = |found: &&Found| found.mask.as_ref().is_some_and(|mask| mask.doubt(true) == Some(doubt));
        let names: Vec<String> = checked.found.iter().filter(is_it).map(|found| name(&found.path)).collect();
        if !names.is_empty() {
            checked.remarks.push(format!("the mask of each of these {doubt}{so}: {}", names.join(", ")));
        }
    }
    let mut sha = Sha256::new();
    for found in &checked.found {
        sha.update(found.picture.width().to_le_bytes());
        sha.update(found.picture.rgb());
        sha.update((found.caption.len() as u64).to_le_bytes());
        sha.update(&found.caption);
        let values = found.mask.iter().flat_map(|mask| mask.values());
        values.for_each(|value| sha.update(value.to_le_bytes()));
    }
    checked.hash = sha.finalize().into();
    checked
}

fn check_folder(folder: &PictureFolder, settings: &Settings, checked: &mut Checked) {
    let paths = match pictures_in(&folder.pictures) {
        Ok(paths) => paths,
        Err(source) => return checked.problems.push(format!("{}: cannot be read: {source}", folder.pictures.display())),
    };
    if paths.is_empty() {
        checked.problems.push(format!("{}: no pictures in it (PNG, JPEG, WebP, BMP)", folder.pictures.display()));
    }
    for (what, named) in [("captions", &folder.captions), ("masks", &folder.masks)] {
        if let Some(named) = named.as_ref().filter(|named| !named.is_dir()) {
            checked.problems.push(format!("{}: no such folder, which is to hold the {what}", named.display()));
        }
    }
    let mut without_caption = Vec::new();
    for path in &paths {
        let picture = match Picture::open(path) {
            Ok(picture) => picture,
            Err(error) => {
                checked.problems.push(error.to_string());
                continue;
            }
        };
        let caption = caption(path, folder, settings, checked).unwrap_or_else(|| {
            without_caption.push(name(path));
            folder.caption.clone().unwrap_or_else(|| PLACEHOLDER.to_string())
        });
        let mask = mask(path, &picture, folder, checked);
        checked.found.push(Found { path: path.clone(), picture, caption, mask });
    }
    let default = folder.caption.as_deref().unwrap_or(PLACEHOLDER);
    if !mentions_concept(default, settings) && !without_caption.is_empty() {
        checked.problems.push(format!("the default caption \"{default}\" has no {PLACEHOLDER} where the concept's words belong"));
    }
    // Where none has a caption, that is how the user wants it.
    if !without_caption.is_empty() && without_caption.len() < paths.len() {
        checked.remarks.push(format!("no caption, so \"{default}\": {}", without_caption.join(", ")));
    }
}

/// The picture files of a folder, sorted by name; masks beside them are left out.
///
/// # Errors
/// A folder that cannot be read.
pub fn pictures_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        let is_mask = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with(MASK_MARK));
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) && !is_mask && !hidden && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The first line of the caption's file that says anything.
fn caption(path: &Path, folder: &PictureFolder, settings: &Settings, checked: &mut Checked) -> Option<String> {
    let beside = folder.captions.as_deref().unwrap_or(&folder.pictures);
    let file = beside.join(format!("{}.txt", stem(path)));
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return None,
        Err(source) => {
            checked.problems.push(format!("{}: cannot be read: {source}", file.display()));
            return None;
        }
    };
    let line = text.trim_start_matches('\u{feff}').lines().map(str::trim).find(|line| !line.is_empty())?;
    if !mentions_concept(line, settings) {
        let problem = format!("{}: \"{line}\" has no {PLACEHOLDER} where the concept's words belong", file.display());
        checked.problems.push(problem);
    }
    Some(line.to_string())
}

/// A caption that names none of the words teaches them nothing.
fn mentions_concept(caption: &str, settings: &Settings) -> bool {
    let lower = caption.to_lowercase();
    caption.contains(PLACEHOLDER) || settings.words.iter().any(|word| lower.contains(&word.to_lowercase()))
}

fn mask(path: &Path, picture: &Picture, folder: &PictureFolder, checked: &mut Checked) -> Option<Mask> {
    let places = match &folder.masks {
        Some(masks) => vec![masks.clone()],
        None => ["mask", "masks"].map(|sub| folder.pictures.join(sub)).to_vec(),
    };
    let stem = stem(path);
    let in_folders = places.iter().flat_map(|place| ENDINGS.map(|ending| place.join(format!("{stem}.{ending}"))));
    let beside = ENDINGS.map(|ending| folder.pictures.join(format!("{stem}{MASK_MARK}.{ending}")));
    let file = in_folders.chain(beside).find(|file| file.is_file())?;
    let mask = match Mask::open(&file) {
        Ok(mask) => mask,
        Err(error) => {
            checked.problems.push(error.to_string());
            return None;
        }
    };
    let (of_mask, of_picture) = ((mask.width(), mask.height()), (picture.width(), picture.height()));
    if of_mask != of_picture {
        let [mask, picture] = [of_mask, of_picture].map(|(width, height)| format!("{width}x{height}"));
        checked.problems.push(format!("{}: the mask is {mask}, the picture {} is {picture}", file.display(), name(path)));
        return None;
    }
    if mask.values().iter().all(|value| *value < 0.5) {
        let problem = match mask.doubt(true) {
            Some(Doubt::Transparent) => format!("{}: the mask {}", file.display(), Doubt::Transparent),
            _ => format!("{}: the mask is black all over; white is where the concept is", file.display()),
        };
        checked.problems.push(problem);
        return None;
    }
    Some(mask)
}

fn sizes(checked: &mut Checked, size: [usize; 2]) {
    let mut small = Vec::new();
    for found in &checked.found {
        let (width, height) = (found.picture.width(), found.picture.height());
        // How much larger it will be shown than it is.
        let share = (f64::from(width) / size[0] as f64).min(f64::from(height) / size[1] as f64);
        if share < TINY {
            let [wanted_width, wanted_height] = size;
            let problem = format!("too small for tuning at {wanted_width}x{wanted_height}");
            checked.problems.push(format!("{}: the picture is {width}x{height}, {problem}", found.path.display()));
        } else if share < 1.0 {
            small.push(format!("{} ({width}x{height})", name(&found.path)));
        }
    }
    if !small.is_empty() {
        checked.remarks.push(format!("smaller than {}x{}, so enlarged: {}", size[0], size[1], small.join(", ")));
    }
}

fn duplicates(checked: &mut Checked) {
    let mut exact: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let mut thumbnails: Vec<Option<Picture>> = Vec::new();
    for (index, found) in checked.found.iter().enumerate() {
        let hash: [u8; 32] = Sha256::digest(found.picture.rgb()).into();
        let thumbnail = found.picture.resized(THUMBNAIL, THUMBNAIL).ok();
        let near = thumbnails.iter().position(|other| is_same(other.as_ref(), thumbnail.as_ref()));
        let earlier = |first: usize| checked.found.get(first).map(|other| name(&other.path)).unwrap_or_default();
        let this = found.path.display();
        match (exact.get(&hash), near) {
            (Some(&first), _) => checked.problems.push(format!("{this}: the same picture as {}", earlier(first))),
            (None, Some(first)) => checked.remarks.push(format!("{this}: hardly differs from {}", earlier(first))),
            (None, None) => {}
        }
        exact.entry(hash).or_insert(index);
        thumbnails.push(thumbnail);
    }
}

fn is_same(a: Option<&Picture>, b: Option<&Picture>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    let difference: f64 = a.rgb().iter().zip(b.rgb()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    difference / (a.rgb().len().max(1) as f64) < SAME
}

impl Found {
    /// The same at no more than `most` times the pixels that tuning looks at along each side: photos of many megapixels would
    /// be read and shrunk again and again.
    pub fn shrunk(mut self, size: [usize; 2], most: f64) -> crate::picture::Result<Found> {
        let (width, height) = (f64::from(self.picture.width()), f64::from(self.picture.height()));
        let share = (size[0] as f64 * most / width).max(size[1] as f64 * most / height);
        if share < 1.0 {
            let side = |length: f64| ((length * share).round() as u32).max(1);
            self.picture = self.picture.resized(side(width), side(height))?;
            let resized = |mask: Mask| mask.resized(side(width), side(height), Scaling::Nearest);
            self.mask = self.mask.map(resized).transpose()?;
        }
        Ok(self)
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
