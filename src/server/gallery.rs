//! The folder of pictures: what was made is kept there, and what lies there is shown, by the
//! settings in the files themselves.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::output;
use crate::picture::{Parameters, parameters};
use crate::pipeline::recipe::Recipe;
use crate::region::Area;

use super::client::{Client, INPUTS};
use super::error::Error;
use super::job::seconds;
use super::problem::Problem;

/// Digits of the number that a file's name begins with.
const DIGITS: usize = 5;

/// Digits of a hash that names a file there.
const HASH_DIGITS: usize = 16;

/// The folder of pictures.
#[derive(Clone)]
pub struct Gallery {
    folder: PathBuf,
}

/// Whether that is the name of a picture's file and of nothing else.
fn is_name(name: &str) -> bool {
    let is_picture = name
        .get(name.len().saturating_sub(4)..)
        .is_some_and(|ending| ending.eq_ignore_ascii_case(".png"));
    let is_plain = !name.starts_with('.') && !name.contains(['/', '\\', ':', '\0']);
    is_picture && is_plain && name.len() <= 255
}

/// The number that a file's name begins with.
fn number_of(name: &str) -> Option<u64> {
    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
    (digits.len() >= DIGITS).then(|| digits.parse().ok())?
}

impl Gallery {
    /// # Errors
    /// A folder that cannot be made or read.
    pub fn new(folder: &Path) -> Result<Gallery, Error> {
        let unreadable = |source| {
            let path = folder.to_path_buf();
            Error::Folder { path, what: "pictures", source }
        };
        std::fs::create_dir_all(folder).map_err(unreadable)?;
        std::fs::read_dir(folder).map_err(unreadable)?;
        Ok(Gallery { folder: folder.to_path_buf() })
    }

    /// The folder of a client that is told apart.
    pub fn of(&self, client: &Client) -> Result<Gallery, Problem> {
        let Some(name) = client.name() else { return Ok(self.clone()) };
        Ok(Gallery { folder: self.inside(name)? })
    }

    /// A folder inside, which is no link to elsewhere; made where it is not there.
    fn inside(&self, name: &str) -> Result<PathBuf, Problem> {
        let folder = self.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        match std::fs::symlink_metadata(&folder)?.is_dir() {
            true => Ok(folder),
            false => Err(Problem::own(format!(
                "`{name}` in the folder of pictures is a link: nothing is kept there"
            ))),
        }
    }

    /// Keeps the pictures that were sent, under their hashes, and names them so in the recipe: from
    /// there the picture can be made again.
    pub fn keep_inputs(
        &self,
        brought: &[(String, Vec<u8>)],
        recipe: &mut Recipe,
    ) -> Result<(), Problem> {
        if brought.is_empty() {
            return Ok(());
        }
        let folder = self.inside(INPUTS)?;
        for (sha256, bytes) in brought {
            let name = input_name(sha256, bytes);
            let path = folder.join(&name);
            if !path.exists() {
                output::write(&path, |out| out.write_all(bytes)).map_err(|error| {
                    Problem::own(format!(
                        "a picture that was sent cannot be kept in the folder of pictures: {error}"
                    ))
                })?;
            }
            let kept = Path::new(INPUTS).join(&name);
            let of_controls = recipe.controls.iter_mut().map(|control| &mut control.image);
            let single = [&mut recipe.image, &mut recipe.mask].into_iter().flatten();
            let sources = single.chain(of_controls).filter(|source| source.sha256 == *sha256);
            sources.for_each(|source| source.path.clone_from(&kept));
            let regions = &mut recipe.request.regions.regions;
            for mask in recipe.region_masks.iter_mut().filter(|mask| mask.sha256 == *sha256) {
                for region in regions.iter_mut() {
                    if let Area::Mask(path) = &mut region.area
                        && *path == mask.path
                    {
                        path.clone_from(&kept);
                    }
                }
                mask.path.clone_from(&kept);
            }
        }
        Ok(())
    }

    /// Names of the pictures, and when they were made; the newest first.
    fn names(&self) -> Result<Vec<(String, SystemTime)>, Problem> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)?.flatten() {
            // What is linked lies elsewhere.
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let name = entry.file_name().into_string().ok().filter(|name| is_name(name));
            let made = entry.metadata().and_then(|found| found.modified());
            if let (true, Some(name), Ok(made)) = (is_file, name, made) {
                names.push((name, made));
            }
        }
        names.sort_by(|a, b| (b.1, &b.0).cmp(&(a.1, &a.0)));
        Ok(names)
    }

    /// Writes a picture's file under the next number, and tells its name.
    pub fn keep(&self, png: &[u8], told: &Parameters) -> Result<String, Problem> {
        let last = self.names()?.iter().filter_map(|(name, _)| number_of(name)).max();
        let number = last.unwrap_or(0).saturating_add(1);
        let name = format!("{number:0DIGITS$}-{}.png", told.get("Seed").unwrap_or("0"));
        let written = output::write(&self.folder.join(&name), |out| out.write_all(png));
        written.map_err(|error| {
            Problem::own(format!(
                "the picture cannot be written to the folder of pictures: {error}"
            ))
        })?;
        Ok(name)
    }

    /// Some pictures with their settings, after the one that is named, and how many there are.
    pub fn list(&self, after: Option<&str>, count: usize) -> Result<Value, Problem> {
        let names = self.names()?;
        let place = after.and_then(|after| names.iter().position(|(name, _)| name == after));
        let first = place.map_or(0, |place| place + 1);
        let shown = names.iter().skip(first).take(count);
        let pictures: Vec<Value> = shown.map(|(name, made)| self.entry(name, *made)).collect();
        let more = first + pictures.len() < names.len();
        Ok(json!({ "pictures": pictures, "count": names.len(), "more": more }))
    }

    fn entry(&self, name: &str, made: SystemTime) -> Value {
        let read = parameters::read(self.folder.join(name));
        let settings = match &read {
            Ok(Some(found)) => settings(found),
            _ => Value::Null,
        };
        json!({
            "name": name,
            "url": format!("/api/gallery/{}", escaped(name)),
            "made": seconds(made),
            "settings": settings,
        })
    }

    /// The file of a picture.
    pub fn file(&self, name: &str) -> Result<Vec<u8>, Problem> {
        let missing = || {
            let shown: String = name.chars().take(100).collect();
            Problem::missing(format!("there is no picture `{shown}` in the folder of pictures"))
        };
        if !is_name(name) {
            return Err(missing());
        }
        let path = self.folder.join(name);
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() => std::fs::read(&path).map_err(|_| missing()),
            _ => Err(missing()),
        }
    }
}

/// What the file of a picture that was sent is called.
fn input_name(sha256: &str, bytes: &[u8]) -> String {
    let ending = match bytes {
        [0x89, b'P', ..] => "png",
        [0xff, 0xd8, ..] => "jpg",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        [b'B', b'M', ..] => "bmp",
        _ => "picture",
    };
    format!("{}.{ending}", sha256.get(..HASH_DIGITS).unwrap_or(sha256))
}

/// How a picture was made, as clients see it.
pub fn settings(found: &Parameters) -> Value {
    let pairs = found.settings.iter().map(|(name, value)| (name.clone(), value.as_str().into()));
    json!({
        "prompt": found.prompt,
        "negative": found.negative_prompt,
        "settings": pairs.collect::<Map<String, Value>>(),
        "text": parameters::format(found),
        "mos": found.mos,
    })
}

/// A name as a part of a URL.
fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    name.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::Picture;

    #[test]
    fn pictures_are_numbered_and_no_name_leads_outside() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("outside.png"), "secret").unwrap();
        let at = folder.path().join("pictures");
        let gallery = Gallery::new(&at).unwrap();
        let mut told = Parameters { prompt: "a cat".into(), ..Parameters::default() };
        for (name, value) in [("Steps", 2), ("CFG scale", 7), ("Seed", 7)] {
            told.set(name, value);
        }
        let mut png = Vec::new();
        Picture::filled(8, 8, [1; 3]).unwrap().write_to(&mut png, Some(&told)).unwrap();
        assert_eq!(gallery.keep(&png, &told).unwrap(), "00001-7.png");
        std::fs::rename(at.join("00001-7.png"), at.join("00041-ä 1.png")).unwrap();
        assert_eq!(gallery.keep(&png, &told).unwrap(), "00042-7.png");
        std::fs::write(at.join("notes.txt"), "").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("outside.png"), at.join("link.png")).unwrap();
        let listed = gallery.list(None, 1).unwrap();
        assert_eq!((&listed["count"], &listed["more"]), (&2.into(), &true.into()));
        assert_eq!(listed["pictures"][0]["name"], "00042-7.png");
        assert_eq!(listed["pictures"][0]["settings"]["prompt"], "a cat");
        let rest = gallery.list(Some("00042-7.png"), 9).unwrap();
        assert_eq!(rest["pictures"][0]["url"], "/api/gallery/00041-%C3%A4%201.png");
        assert_eq!(rest["more"], false);
        assert_eq!(gallery.file("00042-7.png").unwrap(), png);
        for outside in [
            "../outside.png",
            "/etc/passwd",
            "..",
            "",
            "link.png",
            "notes.txt",
            "a/../00042-7.png",
            "./00042-7.png",
            "00042-7.png\0",
            ".png",
        ] {
            let problem = gallery.file(outside).unwrap_err();
            assert_eq!(problem.status, axum::http::StatusCode::NOT_FOUND, "{outside}");
        }
    }
}
