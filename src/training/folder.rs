//! The pictures' folders: what is in them, and all that is wrong with it at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::config::{PictureFolder, Settings};
use super::listing::{Group, Listing, MOST_SLOTS, name, some_of};
pub use super::listing::{count, pictures_in};
use crate::concept::PLACEHOLDER;
use crate::file_kind::read_text;
use crate::numbers::counted;
use crate::picture::{self, Doubt, Mask, Picture, Scaling};

/// Sides shorter than this share of what is tuned at show no details.
const TINY: f64 = 0.25;
/// Two pictures whose small versions differ by less than this (of 255, on average) are the same
/// picture.
const SAME: f64 = 1.5;
/// Side of those small versions.
const THUMBNAIL: u32 = 16;

/// One picture, with what belongs to it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its file.
    pub path: PathBuf,
    /// Upright, as its EXIF data say.
    pub picture: Picture,
    /// Width and height that it has in its file.
    pub original: [usize; 2],
    /// [`PLACEHOLDER`] where the concept's words go.
    pub caption: String,
    /// White where the concept is; none: all of it is.
    pub mask: Option<Mask>,
    /// How often it is drawn in an epoch.
    pub repeats: usize,
}

/// How closely a check looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// At every pixel, as a run does.
    Pixels,
    /// At pictures' and masks' headers, and at whether their files end where they should: soon
    /// done, also with large photos.
    Headers,
}

/// What pictures are learnt as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The concept: captions name it, masks show it.
    Concept,
    /// Its class: captions do not name it, and all of a picture counts.
    Class,
}

/// One picture, as far as its header tells.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its file.
    pub path: PathBuf,
    /// Width and height, upright.
    pub size: (u32, u32),
    /// [`PLACEHOLDER`] where the concept's words go.
    pub caption: String,
    /// Whether it has a mask.
    pub masked: bool,
    /// How often it is drawn in an epoch.
    pub repeats: usize,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Checked {
    /// All pictures, as far as headers tell.
    pub seen: Vec<Seen>,
    /// The same with their pixels, where those were looked at.
    pub found: Vec<Found>,
    /// What has to be put right before a run.
    pub problems: Vec<String>,
    /// What the user should know.
    pub remarks: Vec<String>,
    /// SHA-256 over pictures, captions and masks, in order; of those in `found`.
    pub hash: [u8; 32],
}

/// Looks at everything in the settings' folders. `size` is what is tuned at, width and height.
pub fn check(settings: &Settings, size: [usize; 2]) -> Checked {
    check_at(settings, size, Depth::Pixels)
}

/// As [`check`], but as closely as `depth` says.
pub fn check_at(settings: &Settings, size: [usize; 2], depth: Depth) -> Checked {
    let Ok(checked) = check_with(settings, size, depth, &mut |_| Ok::<_, Infallible>(()));
    checked
}

/// As [`check_at`]; `before` is told of each picture how many were looked at, and may end it.
pub(super) fn check_with<E>(
    settings: &Settings,
    size: [usize; 2],
    depth: Depth,
    before: &mut dyn FnMut(usize) -> Result<(), E>,
) -> Result<Checked, E> {
    let mut checked = Checked::default();
    for folder in &settings.folders {
        check_folder(folder, settings, Role::Concept, depth, size, &mut checked, before)?;
    }
    let count = checked.seen.len();
    if checked.problems.is_empty() && (1..4).contains(&count) {
        checked.remarks.push(format!(
            "only {}: 4 to 20 from different sides and in different places are best",
            counted(count, "picture")
        ));
    }
    check_together(&mut checked, size, depth);
    let unmasked: Vec<String> =
        checked.seen.iter().filter(|seen| !seen.masked).map(|seen| name(&seen.path)).collect();
    if !unmasked.is_empty() && unmasked.len() < count {
        checked.remarks.push(format!("no mask, so all of it counts: {}", some_of(&unmasked)));
    }
    for (doubt, so) in
        [(Doubt::Transparent, ""), (Doubt::White, ": all of the picture counts as the concept")]
    {
        let is_it = |found: &&Found| {
            found.mask.as_ref().is_some_and(|mask| mask.doubt(true) == Some(doubt))
        };
        let names: Vec<String> =
            checked.found.iter().filter(is_it).map(|found| name(&found.path)).collect();
        if !names.is_empty() {
            checked
                .remarks
                .push(format!("the mask of each of these {doubt}{so}: {}", some_of(&names)));
        }
    }
    checked.hash = hash(&checked.found);
    Ok(checked)
}

/// Looks at a folder of class pictures.
pub fn check_class(
    folder: &PictureFolder,
    settings: &Settings,
    size: [usize; 2],
    depth: Depth,
) -> Checked {
    let mut checked = Checked::default();
    let Ok(()) =
        check_folder(folder, settings, Role::Class, depth, size, &mut checked, &mut |_| {
            Ok::<_, Infallible>(())
        });
    check_together(&mut checked, size, depth);
    checked.hash = hash(&checked.found);
    checked
}

fn check_together(checked: &mut Checked, size: [usize; 2], depth: Depth) {
    repeats(checked);
    sizes(checked, size);
    match depth {
        Depth::Pixels => duplicates(checked),
        Depth::Headers => same_files(checked),
    }
}

/// SHA-256 over pictures, captions and masks, in order.
pub(super) fn hash(found: &[Found]) -> [u8; 32] {
    let mut sha = Sha256::new();
    for found in found {
        sha.update(found.picture.width().to_le_bytes());
        sha.update(found.picture.rgb());
        sha.update((found.caption.len() as u64).to_le_bytes());
        sha.update(&found.caption);
        let values = found.mask.iter().flat_map(|mask| mask.values());
        values.for_each(|value| sha.update(value.to_le_bytes()));
    }
    // Equal ones change nothing.
    if found.iter().any(|found| found.repeats != 1) {
        found.iter().for_each(|found| sha.update((found.repeats as u64).to_le_bytes()));
    }
    sha.finalize().into()
}

fn check_folder<E>(
    folder: &PictureFolder,
    settings: &Settings,
    role: Role,
    depth: Depth,
    size: [usize; 2],
    checked: &mut Checked,
    before: &mut dyn FnMut(usize) -> Result<(), E>,
) -> Result<(), E> {
    let listing = match Listing::of(folder) {
        Ok(listing) => listing,
        Err(_) if folder.pictures.is_file() => {
            let problem = "a file, expected a folder of pictures";
            checked.problems.push(format!("{}: {problem}", folder.pictures.display()));
            return Ok(());
        }
        Err(source) => {
            checked.problems.push(format!(
                "{}: the pictures cannot be read: {source}",
                folder.pictures.display()
            ));
            return Ok(());
        }
    };
    let left_out = listing.told_left_out();
    if listing.groups.iter().all(|group| group.pictures.is_empty()) {
        let left_out =
            left_out.as_ref().map_or(String::new(), |told| format!("; left out: {told}"));
        checked.problems.push(format!(
            "{}: no pictures in it (PNG, JPEG, WebP, BMP){left_out}",
            folder.pictures.display()
        ));
    } else if let Some(told) = left_out {
        checked.remarks.push(format!("left out of {}: {told}", folder.pictures.display()));
    }
    for (what, named) in [("captions", &folder.captions), ("masks", &folder.masks)] {
        if let Some(named) = named.as_ref().filter(|named| !named.is_dir()) {
            checked
                .problems
                .push(format!("{}: no such folder, which is to hold the {what}", named.display()));
        }
    }
    let default = folder.caption.as_deref().unwrap_or(PLACEHOLDER);
    let (mut without_caption, mut masked_class) = (Vec::new(), Vec::new());
    let mut pictures = 0;
    for group in &listing.groups {
        pictures += group.pictures.len();
        checked.remarks.extend(group.remarks());
        for path in &group.pictures {
            before(checked.seen.len())?;
            let opened = match depth {
                Depth::Pixels => Picture::open(path)
                    .map(|picture| ((picture.width(), picture.height()), Some(picture))),
                Depth::Headers => picture::measure(path).map(|size| (size, None)),
            };
            let (own_size, picture) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    checked.problems.push(error.to_string());
                    continue;
                }
            };
            let caption = caption(path, group, settings, role, checked).unwrap_or_else(|| {
                without_caption.push(name(path));
                default.to_string()
            });
            let mut mask_file = group.mask_of(path);
            if role == Role::Class && mask_file.take().is_some() {
                masked_class.push(name(path));
            }
            let mask = mask_file.and_then(|file| mask(file, path, own_size, depth, checked));
            let (masked, repeats) = (mask_file.is_some(), group.repeats);
            checked.seen.push(Seen {
                path: path.clone(),
                size: own_size,
                caption: caption.clone(),
                masked,
                repeats,
            });
            let Some(picture) = picture else { continue };
            let original = [picture.width() as usize, picture.height() as usize];
            let path = path.clone();
            let found = Found { path, picture, original, caption, mask, repeats };
            match role {
                Role::Concept => checked.found.push(found),
                // There may be hundreds: none is kept larger than it is looked at.
                Role::Class => match found.shrunk(size, 1.0) {
                    Ok(found) => checked.found.push(found),
                    Err(error) => checked.problems.push(error.to_string()),
                },
            }
        }
    }
    if !masked_class.is_empty() {
        checked.remarks.push(format!(
            "masks of class pictures are not used, all of these counts: {}",
            some_of(&masked_class)
        ));
    }
    if role == Role::Concept && !mentions_concept(default, settings) && !without_caption.is_empty()
    {
        checked.problems.push(format!(
            "the default caption \"{default}\" has no {PLACEHOLDER} \
            where the concept's words belong"
        ));
    }
    // Where none has a caption, that is how the user wants it.
    if !without_caption.is_empty() && without_caption.len() < pictures {
        checked
            .remarks
            .push(format!("no caption, so \"{default}\": {}", some_of(&without_caption)));
    }
    Ok(())
}

/// Repeats weigh pictures against each other, so what all have in common is divided out.
fn repeats(checked: &mut Checked) {
    let common = checked
        .seen
        .iter()
        .fold(0, |common, seen| greatest_common_divisor(common, seen.repeats))
        .max(1);
    checked.seen.iter_mut().for_each(|seen| seen.repeats /= common);
    checked.found.iter_mut().for_each(|found| found.repeats /= common);
    if common > 1 && checked.seen.iter().all(|seen| seen.repeats == 1) {
        checked.remarks.push(format!(
            "all pictures have {common} repeats: that is as none, since `steps` \
                says how long it is trained"
        ));
    }
    let slots: usize =
        checked.seen.iter().fold(0, |slots, seen| slots.saturating_add(seen.repeats));
    if slots > MOST_SLOTS {
        checked.problems.push(format!(
            "the folders' repeats make an epoch of {slots} pictures: expected {MOST_SLOTS} at most"
        ));
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// The first line of the caption's file that says anything.
fn caption(
    path: &Path,
    group: &Group,
    settings: &Settings,
    role: Role,
    checked: &mut Checked,
) -> Option<String> {
    let file = group.caption_of(path)?;
    let text = match read_text(file, "a caption (text)") {
        Ok(text) => text,
        Err(source) => {
            checked.problems.push(format!("{}: cannot be read: {source}", file.display()));
            return None;
        }
    };
    let line =
        text.trim_start_matches('\u{feff}').lines().map(str::trim).find(|line| !line.is_empty())?;
    let problem = match role {
        Role::Concept if !mentions_concept(line, settings) => {
            format!("has no {PLACEHOLDER} where the concept's words belong")
        }
        Role::Class if has_words(line, settings) => {
            "names the concept, and is the caption of a picture of its class".to_string()
        }
        _ => return Some(line.to_string()),
    };
    checked.problems.push(format!("{}: \"{line}\" {problem}", file.display()));
    Some(line.to_string())
}

/// A caption that names none of the words teaches them nothing.
fn mentions_concept(caption: &str, settings: &Settings) -> bool {
    caption.contains(PLACEHOLDER) || has_words(caption, settings)
}

fn has_words(caption: &str, settings: &Settings) -> bool {
    let lower = caption.to_lowercase();
    settings.words.iter().any(|word| lower.contains(&word.to_lowercase()))
}

/// The mask in `file` of the picture `path`, where its pixels are looked at.
fn mask(
    file: &Path,
    path: &Path,
    of_picture: (u32, u32),
    depth: Depth,
    checked: &mut Checked,
) -> Option<Mask> {
    let opened = match depth {
        Depth::Pixels => Mask::open(file).map(|mask| ((mask.width(), mask.height()), Some(mask))),
        Depth::Headers => picture::measure(file).map(|size| (size, None)),
    };
    let (of_mask, mask) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            checked.problems.push(error.to_string());
            return None;
        }
    };
    if of_mask != of_picture {
        let [mask, picture] =
            [of_mask, of_picture].map(|(width, height)| format!("{width}x{height}"));
        checked.problems.push(format!(
            "{}: the mask is {mask}, the picture {} is {picture}",
            file.display(),
            name(path)
        ));
        return None;
    }
    let mask = mask?;
    if mask.values().iter().all(|value| *value < 0.5) {
        let problem = match mask.doubt(true) {
            Some(Doubt::Transparent) => {
                format!("{}: the mask {}", file.display(), Doubt::Transparent)
            }
            _ => format!(
                "{}: the mask is black all over; white is where the concept is",
                file.display()
            ),
        };
        checked.problems.push(problem);
        return None;
    }
    Some(mask)
}

fn sizes(checked: &mut Checked, size: [usize; 2]) {
    let mut small = Vec::new();
    for seen in &checked.seen {
        let (width, height) = seen.size;
        // How much larger it will be shown than it is.
        let share = (f64::from(width) / size[0] as f64).min(f64::from(height) / size[1] as f64);
        if share < TINY {
            let [wanted_width, wanted_height] = size;
            let problem = format!("too small for tuning at {wanted_width}x{wanted_height}");
            checked.problems.push(format!(
                "{}: the picture is {width}x{height}, {problem}",
                seen.path.display()
            ));
        } else if share < 1.0 {
            small.push(format!("{} ({width}x{height})", name(&seen.path)));
        }
    }
    if !small.is_empty() {
        checked.remarks.push(format!(
            "smaller than {}x{}, so enlarged: {}",
            size[0],
            size[1],
            some_of(&small)
        ));
    }
}

fn duplicates(checked: &mut Checked) {
    let mut exact: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let mut thumbnails: Vec<Option<Picture>> = Vec::new();
    for (index, found) in checked.found.iter().enumerate() {
        let hash: [u8; 32] = Sha256::digest(found.picture.rgb()).into();
        let thumbnail = found.picture.resized(THUMBNAIL, THUMBNAIL).ok();
        let near = thumbnails.iter().position(|other| is_same(other.as_ref(), thumbnail.as_ref()));
        let earlier = |first: usize| {
            checked.found.get(first).map(|other| name(&other.path)).unwrap_or_default()
        };
        let this = found.path.display();
        match (exact.get(&hash), near) {
            (Some(&first), _) => {
                checked.problems.push(format!("{this}: the same picture as {}", earlier(first)))
            }
            (None, Some(first)) => {
                checked.remarks.push(format!("{this}: hardly differs from {}", earlier(first)))
            }
            (None, None) => {}
        }
        exact.entry(hash).or_insert(index);
        thumbnails.push(thumbnail);
    }
}

/// Files of the very same bytes.
fn same_files(checked: &mut Checked) {
    let mut known: BTreeMap<[u8; 32], &Path> = BTreeMap::new();
    for seen in &checked.seen {
        // A file that cannot be read has been told of already.
        let Ok(bytes) = std::fs::read(&seen.path) else { continue };
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        match known.get(&hash) {
            Some(first) => {
                checked.problems.push(format!(
                    "{}: the same picture as {}",
                    seen.path.display(),
                    name(first)
                ));
            }
            None => drop(known.insert(hash, &seen.path)),
        }
    }
}

fn is_same(a: Option<&Picture>, b: Option<&Picture>) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    let difference: f64 = a.rgb().iter().zip(b.rgb()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    difference / (a.rgb().len().max(1) as f64) < SAME
}

impl Found {
    /// The same at no more than `most` times the pixels that tuning looks at along each side:
    /// photos of many megapixels would be read and shrunk again and again.
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
