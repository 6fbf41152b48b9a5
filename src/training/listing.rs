//! What stands in a folder of pictures: which files are trained from, which belong to them, and what
//! is left out.
//!
//! Sub-folders called `10_name` are read too, as kohya's trainers lay them out: their pictures come
//! 10 times in an epoch.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::config::PictureFolder;
use crate::file_kind::FileKind;

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
/// Files that are named one by one; of more, the number is told.
const NAMED: usize = 20;

/// All of a folder.
#[derive(Debug, Default)]
pub struct Listing {
    /// The folder itself, and kohya's folders in it.
    pub groups: Vec<Group>,
    /// What is not trained from, each with its reason.
    left_out: Vec<String>,
}

/// Pictures that lie together.
#[derive(Debug, Default)]
pub struct Group {
    pub folder: PathBuf,
    /// Sorted by name.
    pub pictures: Vec<PathBuf>,
    /// Where their masks may be, besides in files beside them.
    pub masks: Vec<PathBuf>,
    /// How often each picture comes in an epoch.
    pub repeats: usize,
    /// The text of kohya's folders: their name without the number.
    label: Option<String>,
    /// Files of captions by the pictures' stems, the one that is read first.
    captions: BTreeMap<String, Vec<PathBuf>>,
    /// The captions lie beside the pictures.
    beside: bool,
}

impl Listing {
    /// Looks at the names in a folder, and at the beginning of files whose names do not tell what
    /// they are.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn of(folder: &PictureFolder) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let mut group = Group::new(folder, None, 1);
        for path in entries(&folder.pictures)? {
            if path.is_dir() {
                listing.inside(folder, &path)?;
            } else {
                listing.file(&path, &mut group);
            }
        }
        group.pictures.sort();
        listing.groups.insert(0, group);
        Ok(listing)
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
                let mut group = Group::new(folder, Some((path, label)), repeats);
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
                format!("a folder within, with {of} picture{}", if of == 1 { "" } else { "s" })
            }
        };
        self.left_out.push(format!("{called}/ ({reason})"));
        Ok(())
    }

    fn file(&mut self, path: &Path, group: &mut Group) {
        let ending = ending(path);
        let reason = if ENDINGS.contains(&ending.as_str()) {
            match path.is_file() {
                true if is_mask(path) => return,
                true => return group.pictures.push(path.to_path_buf()),
                false if path.is_symlink() => "a link that leads nowhere".to_string(),
                false => "no file".to_string(),
            }
        } else if CAPTIONS.contains(&ending.as_str()) {
            return;
        } else {
            match FileKind::of_file(path) {
                Ok(kind) if kind.is_read_picture() => {
                    format!(
                        "{}, but not called as one: a name that ends in .png or the like makes it \
                            count",
                        kind.describe()
                    )
                }
                Ok(kind) if kind.is_picture() || OTHER_PICTURES.contains(&ending.as_str()) => {
                    format!("{}, which is not read: saved as PNG or JPEG it is", kind.describe())
                }
                Ok(
                    kind @ (FileKind::Video
                    | FileKind::Zip
                    | FileKind::SevenZip
                    | FileKind::Rar
                    | FileKind::Gzip),
                ) => kind.describe().to_string(),
                // What people and programs keep beside pictures.
                Ok(_) => return,
                Err(_) if path.is_symlink() => "a link that leads nowhere".to_string(),
                Err(error) => format!("cannot be read: {error}"),
            }
        };
        let shown = match &group.label {
            Some(_) => format!("{}/{}", name(&group.folder), name(path)),
            None => name(path),
        };
        self.left_out.push(format!("{shown} ({reason})"));
    }

    /// What is left out, and why; none if nothing is.
    pub fn told_left_out(&self) -> Option<String> {
        let mut all = self.left_out.clone();
        for group in self.groups.iter().filter(|group| group.beside) {
            let stems: Vec<String> = group.pictures.iter().map(|path| stem(path)).collect();
            let lost = group
                .captions
                .iter()
                .filter(|(stem, _)| !stems.contains(stem))
                .flat_map(|(_, files)| files);
            all.extend(
                lost.map(|file| format!("{} (text without a picture of that name)", name(file))),
            );
        }
        let more = all.len().saturating_sub(NAMED);
        all.truncate(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!all.is_empty()).then(|| format!("{}{more}", all.join(", ")))
    }
}

impl Group {
    /// `inside`: a folder of kohya's within, and the text of its name.
    fn new(of: &PictureFolder, inside: Option<(&Path, String)>, repeats: usize) -> Group {
        let (folder, label) = match inside {
            Some((folder, label)) => (folder.to_path_buf(), Some(label)),
            None => (of.pictures.clone(), None),
        };
        // Folders of captions and masks may be divided as the pictures' is.
        let divided = |named: &PathBuf| {
            let part = label.as_ref().and_then(|_| Some(named.join(folder.file_name()?)));
            part.filter(|part| part.is_dir()).unwrap_or_else(|| named.clone())
        };
        let masks = match &of.masks {
            Some(named) => vec![divided(named)],
            None => MASK_FOLDERS.map(|masks| folder.join(masks)).to_vec(),
        };
        let captions = captions(&of.captions.as_ref().map_or_else(|| folder.clone(), divided));
        Group {
            folder,
            pictures: Vec::new(),
            masks,
            repeats,
            label,
            captions,
            beside: of.captions.is_none(),
        }
    }

    /// The file of a picture's caption.
    pub fn caption_of(&self, picture: &Path) -> Option<&Path> {
        self.captions.get(&stem(picture))?.first().map(PathBuf::as_path)
    }

    /// What the user should know of it.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(label) = &self.label {
            let (called, count, repeats) = (name(&self.folder), self.pictures.len(), self.repeats);
            remarks.push(format!(
                "{called} (kohya's layout): {count} pictures, each {repeats} times in an epoch; \
                    \"{label}\" is not taken for a caption"
            ));
        }
        let has = |picture: &&PathBuf| {
            self.captions.get(&stem(picture)).is_some_and(|files| files.len() > 1)
        };
        let twice: Vec<String> =
            self.pictures.iter().filter(has).map(|picture| stem(picture)).collect();
        if !twice.is_empty() {
            remarks.push(format!("two captions, of which the .txt is read: {}", twice.join(", ")));
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
