//! The place of a fused model: what may be replaced there, and what of it stays.
//!
//! Only a folder that this program fused is replaced, and of it only the files that this program
//! wrote: whatever else is in it is carried over into the new one. No symbolic link is followed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Error, Result};
use crate::output;

/// The file that says which tokens a word is.
pub const WORDS_FILE: &str = "new_concept_cfg.json";
/// The note of what went in.
pub const NOTE_FILE: &str = "fusion.json";

/// What the folder of a run that is under way is called besides.
pub(super) const WORKING: &str = ".fusing";

/// `path` with `ending` after its last name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(|| OsString::from("model"), OsString::from);
    name.push(ending);
    path.with_file_name(name)
}

/// The key of the note under which the model's files are listed.
pub(super) const FILES: &str = "files";
/// What the command line writes into a model that is done.
const REPORT: [&str; 3] = ["report/report.json", "report/report.md", "report/sheet.png"];
/// The files of models that were fused before their notes listed them.
const UNLISTED: [&str; 18] = [
    NOTE_FILE,
    super::WORDS_FILE,
    "generation_config.json",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/added_tokens.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "feature_extractor/preprocessor_config.json",
];

/// Whether a fused model could be written to `out`, before any work: a new folder, an empty one,
/// or, with `replace`, one that this program fused. Nothing is made.
///
/// # Errors
/// Whatever else stands there, which is never replaced; a place that is closed to us.
pub fn check_output(out: &Path, replace: bool) -> Result<()> {
    output::check_whole_folder(out).map_err(Error::io(out, "write"))?;
    let out = &output::plain(out);
    // While it is made and replaced, others stand beside it.
    for ending in [WORKING, ".old-99"] {
        let other = beside(out, ending);
        match output::check_whole_folder(&other) {
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {
                return Err(Error::io(out, "write")(error));
            }
            _ => {}
        }
    }
    if !out.exists() || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none()) {
        return Ok(());
    }
    if !replace {
        return Err(Error::file(
            out,
            "it is there already; --replace replaces it, if this program fused it",
        ));
    }
    written(out).map(drop)
}

/// The files of the model in `folder` that this program wrote, relative to it.
fn written(folder: &Path) -> Result<BTreeSet<PathBuf>> {
    let path = folder.join(NOTE_FILE);
    let refused = |why: String| {
        Error::file(
            folder,
            format!("it is no model that this program fused, so it is not replaced: {why}"),
        )
    };
    let text = fs::read_to_string(&path)
        .map_err(|e| refused(format!("{NOTE_FILE} in it cannot be read: {e}")))?;
    let note: Value = serde_json::from_str(&text)
        .map_err(|e| refused(format!("{NOTE_FILE} in it is damaged: {e}")))?;
    if note.get("mos_fusion").is_none() {
        return Err(refused(format!("{NOTE_FILE} in it is another program's")));
    }
    let listed = note
        .get(FILES)
        .and_then(Value::as_array)
        .map(|files| files.iter().filter_map(Value::as_str).collect());
    let listed: Vec<&str> = listed.unwrap_or_else(|| UNLISTED.to_vec());
    Ok(listed.into_iter().chain(REPORT).map(PathBuf::from).collect())
}

/// All files in `folder`, relative to it, with `/` between their parts.
pub(super) fn files_in(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(inside) = folders.pop() {
        let path = folder.join(&inside);
        for entry in fs::read_dir(&path).map_err(Error::io(&path, "read the folder"))? {
            let entry = entry.map_err(Error::io(&path, "read the folder"))?;
            let name = format!("{inside}{}", entry.file_name().to_string_lossy());
            match entry.file_type().map_err(Error::io(&path, "read the folder"))?.is_dir() {
                true => folders.push(format!("{name}/")),
                false => found.push(name),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Moves the finished model `made` to `out`, which [`check_output`] has allowed; both are in one
/// folder, so that nothing is ever half there. Sentences for the user: what was carried over, and
/// what could not be and stands beside it.
pub(super) fn put(made: &Path, out: &Path) -> Result<Vec<String>> {
    // Again, for much may have happened during the work.
    check_output(out, true)?;
    let out = &output::plain(out);
    if !out.exists() {
        fs::rename(made, out).map_err(Error::io(out, "move the new model to"))?;
        return Ok(Vec::new());
    }
    let is_model = out.join(NOTE_FILE).exists();
    let ours = if is_model { written(out)? } else { BTreeSet::new() };
    let old = free_name(out);
    fs::rename(out, &old).map_err(Error::io(out, "move the old model away"))?;
    if let Err(error) = fs::rename(made, out) {
        let _ = fs::rename(&old, out);
        return Err(Error::io(out, "move the new model to")(error));
    }
    let mut settled = Settled { old: &old, new: out, ours, carried: Vec::new(), left: Vec::new() };
    settled.folder(Path::new("")).map_err(Error::io(&old, "carry over what is in the folder"))?;
    let Settled { carried, left, .. } = settled;
    let mut notes = Vec::new();
    if !carried.is_empty() {
        notes.push(format!(
            "kept what this program had not written into {}: {}",
            out.display(),
            carried.join(", ")
        ));
    }
    if left.is_empty() {
        fs::remove_dir(&old).map_err(Error::io(&old, "remove the folder"))?;
    } else {
        notes.push(format!(
            "the new model has files of the same names, so these are in {} now: {}",
            old.display(),
            left.join(", ")
        ));
    }
    Ok(notes)
}

/// `NAME.old`, or with a number, whichever is free.
fn free_name(out: &Path) -> PathBuf {
    let numbered = (2..).map(|n| beside(out, &format!(".old-{n}")));
    let mut names = std::iter::once(beside(out, ".old")).chain(numbered);
    names.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_else(|| beside(out, ".old"))
}

/// An old model under way: its own files go, all others are moved into the new one.
struct Settled<'a> {
    old: &'a Path,
    new: &'a Path,
    ours: BTreeSet<PathBuf>,
    carried: Vec<String>,
    left: Vec<String>,
}

impl Settled<'_> {
    fn folder(&mut self, inside: &Path) -> io::Result<()> {
        let mut entries: Vec<PathBuf> = fs::read_dir(self.old.join(inside))?
            .map(|e| e.map(|e| inside.join(e.file_name())))
            .collect::<io::Result<_>>()?;
        entries.sort();
        for entry in entries {
            let (old, new) = (self.old.join(&entry), self.new.join(&entry));
            // Neither looks through a symbolic link.
            let kind = fs::symlink_metadata(&old)?.file_type();
            let there = fs::symlink_metadata(&new).ok().map(|found| found.file_type());
            let has_ours = kind.is_dir() && self.ours.iter().any(|file| file.starts_with(&entry));
            if kind.is_dir() && (has_ours || there.is_some_and(|there| there.is_dir())) {
                self.folder(&entry)?;
                // Fails where something stays in it.
                let _ = fs::remove_dir(&old);
            } else if kind.is_file() && (self.ours.contains(&entry) || is_same(&old, &new)) {
                fs::remove_file(&old)?;
            } else if there.is_none() && self.can_hold(inside) {
                fs::create_dir_all(self.new.join(inside))?;
                fs::rename(&old, &new)?;
                self.carried.push(entry.display().to_string());
            } else {
                self.left.push(entry.display().to_string());
            }
        }
        Ok(())
    }

    /// No part of `inside` is a file or a link in the new model.
    fn can_hold(&self, inside: &Path) -> bool {
        let mut parts = inside.ancestors().filter(|part| !part.as_os_str().is_empty());
        parts.all(|part| {
            fs::symlink_metadata(self.new.join(part)).map_or(true, |found| found.is_dir())
        })
    }
}

/// Both are files of the same bytes.
fn is_same(a: &Path, b: &Path) -> bool {
    let length = |path: &Path| {
        fs::symlink_metadata(path).ok().filter(|found| found.is_file()).map(|found| found.len())
    };
    let both = length(a).zip(length(b));
    both.is_some_and(|(a, b)| a == b)
        && matches!((fs::read(a), fs::read(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    /// A model with these files besides its note.
    fn model(folder: &Path, files: &[(&str, &str)]) {
        write(folder, files);
        let mut listed: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        listed.push(NOTE_FILE);
        fs::write(
            folder.join(NOTE_FILE),
            serde_json::json!({"mos_fusion": 1, FILES: listed}).to_string(),
        )
        .unwrap();
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn only_what_was_fused_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let refused =
            |name: &str, replace| check_output(&at.join(name), replace).unwrap_err().to_string();
        write(
            at,
            &[
                ("thesis/notes.txt", "years of work"),
                ("note/fusion.json", "{}"),
                ("bad/fusion.json", "{"),
                ("file", ""),
            ],
        );
        assert!(refused("thesis", true).contains("no model that this program fused"));
        assert!(refused("note", true).contains("another program's"));
        assert!(refused("bad", true).contains("damaged"));
        for (name, word) in
            [("file", "not a folder"), ("thesis", "--replace"), (&"n".repeat(300), "name")]
        {
            assert!(refused(name, false).contains(word), "{}", refused(name, false));
        }
        assert!(check_output(Path::new("."), true).unwrap_err().to_string().contains("of its own"));
        assert!(check_output(&at.join("n".repeat(252)), false).is_err());
        check_output(&at.join("new/new"), false).unwrap();
        fs::create_dir(at.join("empty")).unwrap();
        check_output(&at.join("empty"), false).unwrap();
        model(&at.join("both"), &[("unet/config.json", "{}")]);
        check_output(&at.join("both"), true).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at.join("both"), at.join("link")).unwrap();
            assert!(refused("link", true).contains("symbolic link"));
        }
    }

    #[test]
    fn what_this_program_did_not_write_is_carried_over() {
        let folder = tempfile::tempdir().unwrap();
        let (out, made) = (folder.path().join("both"), folder.path().join("made"));
        model(
            &out,
            &[
                ("unet/config.json", "old"),
                ("model_index.json", "old"),
                ("tower/config.json", "old"),
            ],
        );
        let users = [
            ("notes.txt", "notes"),
            ("samples/a/1.png", "picture"),
            ("unet/mine.txt", "mine"),
            ("tower/mine.txt", "mine"),
            ("vae/config.json", "the user's"),
            ("extra.txt", "the same"),
            ("report/report.md", "a report"),
        ];
        write(&out, &users);
        fs::create_dir(out.join("empty")).unwrap();
        // Somebody's own folder that happens to be called so.
        write(folder.path(), &[("both.old/precious", "precious")]);
        let elsewhere = folder.path().join("elsewhere");
        write(&elsewhere, &[("config.json", "far")]);
        #[cfg(unix)]
        std::os::unix::fs::symlink(&elsewhere, out.join("scheduler")).unwrap();
        model(
            &made,
            &[
                ("unet/config.json", "new"),
                ("vae/config.json", "new"),
                ("extra.txt", "the same"),
                ("scheduler/config.json", "new"),
            ],
        );
        let notes = put(&made, &out).unwrap();
        for (name, text) in [
            ("unet/config.json", "new"),
            ("vae/config.json", "new"),
            ("scheduler/config.json", "new"),
            ("notes.txt", "notes"),
            ("samples/a/1.png", "picture"),
            ("unet/mine.txt", "mine"),
            ("tower/mine.txt", "mine"),
        ] {
            assert_eq!(read(out.join(name)), text, "{name}");
        }
        for gone in ["model_index.json", "tower/config.json", "report/report.md"] {
            assert!(!out.join(gone).exists(), "{gone}");
        }
        assert!(out.join("empty").is_dir());
        let old = folder.path().join("both.old-2");
        assert_eq!(read(old.join("vae/config.json")), "the user's");
        assert_eq!(read(elsewhere.join("config.json")), "far");
        assert_eq!(read(folder.path().join("both.old/precious")), "precious");
        assert!(notes[0].contains("notes.txt") && notes[0].contains("samples"), "{notes:?}");
        assert!(
            notes[1].contains("both.old-2") && notes[1].contains("vae/config.json"),
            "{notes:?}"
        );
    }

    #[test]
    fn a_model_without_anything_else_is_replaced_without_a_trace() {
        let folder = tempfile::tempdir().unwrap();
        let (out, made) = (folder.path().join("both"), folder.path().join("made"));
        model(&out, &[("unet/config.json", "old"), ("report/report.md", "a report")]);
        model(&made, &[("unet/config.json", "new")]);
        assert!(put(&made, &out).unwrap().is_empty());
        assert_eq!(files_in(&out).unwrap(), ["fusion.json", "unet/config.json"]);
        assert_eq!(files_in(folder.path()).unwrap(), ["both/fusion.json", "both/unet/config.json"]);
        // Of the time before there were lists.
        fs::write(out.join(NOTE_FILE), "{\"mos_fusion\": 1}").unwrap();
        model(&made, &[("unet/config.json", "newer")]);
        assert!(put(&made, &out).unwrap().is_empty());
        assert_eq!(read(out.join("unet/config.json")), "newer");
    }
}
