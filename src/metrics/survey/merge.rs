//! Parts of a survey, made in folders of their own, become one.

use std::path::{Path, PathBuf};

use super::places::{REFERENCES, path, record_path};
use super::report::write;
use super::results::{Results, found};
use super::{Error, Result, Settings};

/// Copies the pictures and scores of `parts` into `out`, which may be one of them, and writes the
/// results of all: the same bytes as of one run, in whatever order the parts are named.
///
/// # Errors
/// Parts of different surveys; a picture of which two parts have different ones; pictures that no
/// part has; files that cannot be read or written.
pub fn merge(parts: &[PathBuf], out: &Path) -> Result<Results> {
    let settings = |folder: &PathBuf| {
        Settings::read(folder)?.ok_or_else(|| {
            Error::file(folder, "no part of an evaluation: there is no settings.json in it")
        })
    };
    let mut all = Vec::new();
    for part in parts {
        all.push((part.as_path(), settings(part)?));
    }
    let there = Settings::read(out)?;
    let own = there.map(|settings| (out, settings));
    let known = all.iter().any(|(part, _)| crate::output::is_same(part, out));
    let compared: Vec<(&Path, Settings)> =
        own.into_iter().filter(|_| !known).chain(all.iter().cloned()).collect();
    let Some((first, wanted)) = all.first() else {
        return Err(Error::file(out, "there are no parts to merge"));
    };
    for (part, settings) in &compared {
        let differ = wanted.differences(settings);
        if !differ.is_empty() {
            let (first, differ) = (first.display(), differ.join(", "));
            let problem = format!("it was made with other settings than {first}: {differ}");
            return Err(Error::file(part, problem));
        }
    }
    // Names in settings may differ where hashes agree: the first of them in order is kept.
    let least = all
        .iter()
        .map(|(_, settings)| settings)
        .min_by_key(|settings| serde_json::to_string(settings).unwrap_or_default());
    let settings = least.unwrap_or(wanted);
    let mut copies: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut missing = Vec::new();
    let items = settings.items();
    for item in &items {
        let mut holder: Option<&Path> = None;
        for (part, _) in &all {
            if found(settings, part, item)?.is_none() {
                continue;
            }
            match holder {
                Some(other) if !same(&path(other, item), &path(part, item))? => {
                    let problem =
                        format!("not the picture that {} has", path(other, item).display());
                    return Err(Error::file(&path(part, item), problem));
                }
                Some(_) => {}
                None => holder = Some(part),
            }
        }
        match holder {
            Some(part) => {
                copies.push((path(part, item), path(out, item)));
                copies.push((record_path(part, item), record_path(out, item)));
            }
            None => missing.push(item.file.as_str()),
        }
    }
    if let Some(example) = missing.first() {
        let (count, of) = (missing.len(), items.len());
        let problem = format!(
            "of its {of} pictures {} in no part, or not scored, such as {example}: run the parts that \
                are missing",
            if count == 1 { "1 is".to_string() } else { format!("{count} are") }
        );
        return Err(Error::file(out, problem));
    }
    for concept in &settings.concepts {
        let file = Path::new("pictures").join(&concept.name).join(format!("{REFERENCES}.png"));
        if let Some((part, _)) = all.iter().find(|(part, _)| part.join(&file).exists()) {
            copies.push((part.join(&file), out.join(&file)));
        }
    }
    for (from, to) in copies {
        copy(&from, &to)?;
    }
    std::fs::create_dir_all(out).map_err(Error::io(out, "make the folder"))?;
    settings.write(out)?;
    write(out)
}

fn same(a: &Path, b: &Path) -> Result<bool> {
    let read = |path: &Path| std::fs::read(path).map_err(Error::io(path, "read"));
    Ok(read(a)? == read(b)?)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() && same(from, to)? {
        return Ok(());
    }
    let folder = to.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))?;
    let bytes = std::fs::read(from).map_err(Error::io(from, "read"))?;
    crate::output::write(to, |out| out.write_all(&bytes)).map_err(Error::io(to, "write"))
}
