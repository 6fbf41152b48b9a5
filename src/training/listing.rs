//! What stands in a folder of pictures: which files are trained from, which belong to them, and what
//! is left out.
//!
//! Sub-folders called `10_name` are read too, as kohya's trainers lay them out: their pictures come
//! 10 times in an epoch.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::config::PictureFolder;
use crate::file_kind::FileKind;
use crate::numbers::counted;

/// Endings of files that are taken for pictures; what they are is told by their contents.
pub const ENDINGS: [&str; 7] = ["png", "jpg", "jpeg", "webp", "bmp", "jfif", "jpe"];
/// Endings of mask files that stand beside their pictures.
pub const MASK_MARK: &str = ".mask";
/// Pictures of an epoch, repeats included.
pub const MOST_SLOTS: usize = 1 << 16;
/// Folders of masks within the pictures'.
const MASK_FOLDERS: [&str; 2] = ["mask", "masks"];
/// Endings of captions; of two for one picture, the first is read.
const CAPTIONS: [&str; 2] = ["txt", "caption"];
/// Endings that only pictures have which are not read.
const OTHER_PICTURES: [&str; 16] = [
    "heic", "heif", "avif", "gif", "tif", "tiff", "jxl", "jp2", "psd", "svg", "dng", "cr2", "cr3",
    "nef", "arw", "raf",
];
/// Endings of films. Not all of them tell by how they begin.
const VIDEOS: [&str; 13] =
    ["mp4", "mov", "m4v", "avi", "mkv", "webm", "wmv", "flv", "mpg", "mpeg", "mts", "3gp", "ogv"];
/// What systems keep in folders of pictures, for themselves; besides, what is hidden.
const OF_SYSTEMS: [&str; 3] = ["thumbs.db", "ehthumbs.db", "desktop.ini"];
/// Files that are named one by one; of more, the number is told.
const NAMED: usize = 20;

/// All of a folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// The folder itself, and kohya's folders in it.
    pub groups: Vec<Group>,
    /// What is not trained from, each with its reason.
    left_out: Vec<String>,
    /// Where masks were looked for.
    mask_folders: Vec<PathBuf>,
}

/// Pictures that lie together.
#[derive(Debug, Default)]
pub struct Group {
    pub folder: PathBuf,
    /// Sorted by name.
    pub pictures: Vec<PathBuf>,
    /// Files of masks by the pictures' stems.
    masks: BTreeMap<String, PathBuf>,
    /// How often each picture comes in an epoch.
    pub repeats: usize,
    /// The text of kohya's folders: their name without the number.
    label: Option<String>,
    /// Files of captions by the pictures' stems, the one that is read first.
    captions: BTreeMap<String, Vec<PathBuf>>,
}

impl Listing {
    /// Looks at the names in a folder, and at the beginning of files whose names do not tell what
    /// they are.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn of(folder: &PictureFolder) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let mut group = listing.group(folder, None, 1);
        for path in entries(&folder.pictures)? {
            if path.is_dir() {
                listing.inside(folder, &path)?;
            } else {
                listing.file(&path, &mut group);
            }
        }
        group.pictures.sort();
        listing.groups.insert(0, group);
        listing.without_picture();
        Ok(listing)
    }

    /// `inside`: a folder of kohya's within, and the text of its name.
    fn group(
        &mut self,
        of: &PictureFolder,
        inside: Option<(&Path, String)>,
        repeats: usize,
    ) -> Group {
        let (folder, label) = match inside {
            Some((folder, label)) => (folder.to_path_buf(), Some(label)),
            None => (of.pictures.clone(), None),
        };
        // Folders of captions and masks may be divided as the pictures' is.
        let divided = |named: &PathBuf| {
            let part = label.as_ref().and_then(|_| Some(named.join(folder.file_name()?)));
            part.filter(|part| part.is_dir()).unwrap_or_else(|| named.clone())
        };
        let places = match &of.masks {
            Some(named) => vec![divided(named)],
            None => MASK_FOLDERS.map(|masks| folder.join(masks)).to_vec(),
        };
        let mut masks = BTreeMap::new();
        for place in places {
            // Shown once, though several groups may share it.
            let seen = self.mask_folders.contains(&place);
            // What cannot be listed holds none.
            let mut files = entries(&place).unwrap_or_default();
            files.sort_by_key(|path| ENDINGS.iter().position(|known| *known == ending(path)));
            for path in files {
                let shown = format!("{}/{}", name(&place), name(&path));
                match self.picture_or_reason(&path) {
                    Ok(()) => drop(masks.entry(stem(&path)).or_insert(path)),
                    Err(Some(reason)) if !seen => self.left_out.push(format!("{shown} ({reason})")),
                    Err(_) => {}
                }
            }
            self.mask_folders.push(place);
        }
        let captions = captions(&of.captions.as_ref().map_or_else(|| folder.clone(), divided));
        Group { folder, pictures: Vec::new(), masks, repeats, label, captions }
    }

    /// Notes the captions and masks that belong to no picture.
    fn without_picture(&mut self) {
        let stems = |group: &Group| -> BTreeSet<String> {
            group.pictures.iter().map(|path| stem(path)).collect()
        };
        let all: BTreeSet<String> = self.groups.iter().flat_map(stems).collect();
        let mut lost = BTreeSet::new();
        for group in &self.groups {
            let own = stems(group);
            let captions = group.captions.iter().flat_map(|(stem, files)| {
                files.iter().map(move |file| (stem, file, "text without a picture of that name"))
            });
            let masks = group
                .masks
                .iter()
                .map(|(stem, file)| (stem, file, "a mask without a picture of that name"));
            for (stem, file, reason) in captions.chain(masks) {
                // Folders elsewhere may belong to several groups.
                let stems = if file.starts_with(&group.folder) { &own } else { &all };
                if !stems.contains(stem) {
                    lost.insert((file.clone(), reason));
                }
            }
        }
        for (file, reason) in lost {
            let folder = self.groups.first().map(|group| group.folder.as_path());
            let shown = match file.strip_prefix(folder.unwrap_or(Path::new(""))) {
                Ok(inside) => inside.display().to_string(),
                Err(_) => file.display().to_string(),
            };
            self.left_out.push(format!("{shown} ({reason})"));
        }
    }

    /// A folder within.
    fn inside(&mut self, folder: &PictureFolder, path: &Path) -> io::Result<()> {
        let called = name(path);
        let is = |other: &Option<PathBuf>| other.as_ref().is_some_and(|other| same(other, path));
        if is(&folder.captions)
            || is(&folder.masks)
            || folder.masks.is_none() && MASK_FOLDERS.contains(&called.as_str())
        {
            return Ok(());
        }
        let repeats = called
            .split_once('_')
            .and_then(|(number, label)| Some((number.parse::<usize>().ok()?, label.to_string())));
        let reason = match repeats {
            Some((0, _)) => "0 repeats".to_string(),
            Some((repeats, label)) => {
                let mut group = self.group(folder, Some((path, label)), repeats);
                for path in entries(path)? {
                    match path.is_dir() {
                        true if folder.masks.is_none()
                            && MASK_FOLDERS.contains(&name(&path).as_str()) => {}
                        true => self
                            .left_out
                            .push(format!("{called}/{} (a folder within)", name(&path))),
                        false => self.file(&path, &mut group),
                    }
                }
                group.pictures.sort();
                self.groups.push(group);
                return Ok(());
            }
            None => {
                let of = pictures_in(path).map_or(0, |pictures| pictures.len());
                format!("a folder within, with {}", counted(of, "picture"))
            }
        };
        self.left_out.push(format!("{called}/ ({reason})"));
        Ok(())
    }

    fn file(&mut self, path: &Path, group: &mut Group) {
        let reason = match self.picture_or_reason(path) {
            Ok(()) => {
                match stem(path).strip_suffix(MASK_MARK) {
                    Some(of) => drop(group.masks.entry(of.into()).or_insert(path.to_path_buf())),
                    None => group.pictures.push(path.to_path_buf()),
                }
                return;
            }
            Err(None) => return,
            Err(Some(reason)) => reason,
        };
        let shown = match &group.label {
            Some(_) => format!("{}/{}", name(&group.folder), name(path)),
            None => name(path),
        };
        self.left_out.push(format!("{shown} ({reason})"));
    }

    /// Whether a file is called as a picture and is there; else why it is none, where it may well
    /// have been meant as one.
    fn picture_or_reason(&self, path: &Path) -> Result<(), Option<String>> {
        let ending = ending(path);
        if path.is_dir() {
            return Err(Some("a folder within".to_string()));
        }
        if ENDINGS.contains(&ending.as_str()) {
            return match path.is_file() {
                true => Ok(()),
                false if path.is_symlink() => Err(Some("a link that leads nowhere".to_string())),
                false => Err(Some("no file".to_string())),
            };
        }
        if CAPTIONS.contains(&ending.as_str()) {
            return Err(None);
        }
        if OF_SYSTEMS.contains(&name(path).to_lowercase().as_str()) {
            return Err(None);
        }
        Err(match FileKind::of_file(path) {
            Ok(kind) => not_a_picture(kind, &ending),
            Err(_) if path.is_symlink() => Some("a link that leads nowhere".to_string()),
            Err(error) => Some(format!("cannot be read: {error}")),
        })
    }

    /// What is left out, and why; none if nothing is.
    pub fn told_left_out(&self) -> Option<String> {
        (!self.left_out.is_empty()).then(|| some_of(&self.left_out))
    }
}

/// Why a file that is not called as a picture is none; nothing where nobody could think that it is
/// one.
fn not_a_picture(kind: FileKind, ending: &str) -> Option<String> {
    let found = kind.describe();
    let is_called_so = OTHER_PICTURES.contains(&ending);
    Some(match kind {
        kind if kind.is_read_picture() => format!(
            "{found}, but not called as one: a name that ends in .png or the like makes it count"
        ),
        kind if kind.is_picture() => {
            format!("{found}, which is not read: saved as PNG or JPEG it is")
        }
        // SVG is XML.
        FileKind::Unknown | FileKind::Xml if is_called_so => {
            format!("called .{ending}, a kind that is not read: saved as PNG or JPEG it is")
        }
        _ if is_called_so => format!("called .{ending}, but {found}"),
        FileKind::Video => format!("{found}: frames of it, saved as PNG or JPEG, are read"),
        _ if VIDEOS.contains(&ending) => {
            format!("called .{ending}, a video: frames of it, saved as PNG or JPEG, are read")
        }
        FileKind::Zip | FileKind::SevenZip | FileKind::Rar | FileKind::Gzip | FileKind::Unknown => {
            found.to_string()
        }
        // What people and programs keep beside pictures.
        _ => return None,
    })
}

/// So many of a list as people read, and how many more there are.
pub fn some_of(all: &[String]) -> String {
    let named = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

impl Group {
    /// The file of a picture's caption.
    pub fn caption_of(&self, picture: &Path) -> Option<&Path> {
        self.captions.get(&stem(picture))?.first().map(PathBuf::as_path)
    }

    /// The file of a picture's mask.
    pub fn mask_of(&self, picture: &Path) -> Option<&Path> {
        self.masks.get(&stem(picture)).map(PathBuf::as_path)
    }

    /// What the user should know of it.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(label) = &self.label {
            let (called, count) = (name(&self.folder), counted(self.pictures.len(), "picture"));
            let often = match self.repeats {
                1 => "once".to_string(),
                repeats => format!("{repeats} times"),
            };
            remarks.push(format!(
                "{called} (kohya's layout): {count}, each {often} in an epoch; \"{label}\" is not \
                    taken for a caption"
            ));
        }
        let stems: BTreeSet<String> = self.pictures.iter().map(|path| stem(path)).collect();
        let looks_like_a_mask = |stem: &&String| {
            let of = ["_mask", "-mask"].iter().find_map(|end| stem.strip_suffix(end));
            of.is_some_and(|of| stems.contains(of))
        };
        let masks: Vec<String> = stems.iter().filter(looks_like_a_mask).cloned().collect();
        if !masks.is_empty() {
            remarks.push(format!(
                "taken for pictures, since masks beside them are called NAME{MASK_MARK}.png: {}",
                some_of(&masks)
            ));
        }
        let has = |picture: &&PathBuf| {
            self.captions.get(&stem(picture)).is_some_and(|files| files.len() > 1)
        };
        let twice: Vec<String> =
            self.pictures.iter().filter(has).map(|picture| stem(picture)).collect();
        if !twice.is_empty() {
            remarks.push(format!("two captions, of which the .txt is read: {}", some_of(&twice)));
        }
        remarks
    }
}

/// Number of pictures in a folder.
pub fn count(folder: &Path) -> usize {
    let listing = Listing::of(&of_pictures(folder)).unwrap_or_default();
    listing.groups.iter().map(|group| group.pictures.len()).sum()
}

/// The picture files of a folder, sorted by name; masks beside them are left out.
///
/// # Errors
/// A folder that cannot be read.
pub fn pictures_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_picture = |path: &PathBuf| {
        ENDINGS.contains(&ending(path).as_str()) && !is_mask(path) && path.is_file()
    };
    Ok(entries(folder)?.into_iter().filter(is_picture).collect())
}

fn of_pictures(folder: &Path) -> PictureFolder {
    PictureFolder { pictures: folder.to_path_buf(), captions: None, masks: None, caption: None }
}

/// What is in a folder, sorted; hidden files are nobody's pictures.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    let mut paths: Vec<PathBuf> =
        paths.into_iter().filter(|path| !name(path).starts_with('.')).collect();
    paths.sort();
    Ok(paths)
}

/// The files of captions in a folder, by stem. What cannot be listed holds none.
fn captions(folder: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let all = entries(folder).unwrap_or_default();
    for wanted in CAPTIONS {
        for path in all.iter().filter(|path| ending(path) == wanted && !path.is_dir()) {
            found.entry(stem(path)).or_default().push(path.clone());
        }
    }
    found
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn is_mask(path: &Path) -> bool {
    stem(path).ends_with(MASK_MARK)
}

fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}

pub fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
