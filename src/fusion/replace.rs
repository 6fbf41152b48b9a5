//! The place of a fused model: what may be replaced there, and what of it stays.
//!
//! Only a folder that this program fused is replaced, and of it only the files that this program
//! wrote and nobody edited: whatever else is in it is carried over into the new one. No symbolic
//! link is followed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::written::{NOTE_FILE, Whose, Written};
use super::{Error, Result};
use crate::output;

/// What the folder of a run that is under way is called besides.
pub(super) const WORKING: &str = ".fusing";

/// `path` with `ending` after its last name.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(|| OsString::from("model"), OsString::from);
    name.push(ending);
    path.with_file_name(name)
}

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
    if let (Ok(whole), Ok(here)) = (fs::canonicalize(out), std::env::current_dir())
        && here.starts_with(&whole)
    {
        return Err(Error::file(
            out,
            "this program runs inside of that folder, which would be taken away under it: run it \
                in another one",
        ));
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
    check_folders(out, &Written::read(out)?)
}

/// Whether the model in `out` can be taken away: whatever is in a folder that is closed to us would
/// stay.
fn check_folders(out: &Path, written: &Written) -> Result<()> {
    let mut folders: Vec<PathBuf> = written.folders().map(|inside| out.join(inside)).collect();
    folders.sort();
    folders.dedup();
    let is_folder =
        |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_dir());
    for folder in folders.iter().filter(|folder| is_folder(folder)) {
        // Files would go even where root alone could say so.
        #[cfg(unix)]
        if fs::metadata(folder).is_ok_and(|found| found.permissions().readonly()) {
            return Err(Error::io(folder, "write")(io::ErrorKind::PermissionDenied.into()));
        }
        output::check_folder(folder).map_err(Error::io(folder, "write"))?;
    }
    Ok(())
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
    let written = if is_model { Written::read(out)? } else { Written::default() };
    let old = free_name(out);
    fs::rename(out, &old).map_err(Error::io(out, "move the old model away"))?;
    if let Err(error) = fs::rename(made, out) {
        let _ = fs::rename(&old, out);
        return Err(Error::io(out, "move the new model to")(error));
    }
    let (carried, left) = (Vec::new(), Vec::new());
    let mut settled = Settled { old: &old, new: out, written, carried, left };
    settled.folder(Path::new("")).map_err(Error::io(&old, "carry over what is in the folder"))?;
    let Settled { carried, left, .. } = settled;
    let mut notes = Vec::new();
    if !carried.is_empty() {
        notes.push(format!(
            "kept what this program had not written into {}, or not as it is: {}",
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
    written: Written,
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
            let has_ours = kind.is_dir() && self.written.is_in(&entry);
            if kind.is_dir() && (has_ours || there.is_some_and(|there| there.is_dir())) {
                self.folder(&entry)?;
                // Fails where something stays in it.
                let _ = fs::remove_dir(&old);
                continue;
            }
            let whose = match kind.is_file() {
                true => self.written.whose(self.old, &entry),
                false => Whose::Theirs,
            };
            if whose == Whose::Ours || kind.is_file() && is_same(&old, &new) {
                fs::remove_file(&old)?;
                continue;
            }
            let edited = if whose == Whose::Edited { " (edited since it was fused)" } else { "" };
            let told = format!("{}{edited}", entry.display());
            if there.is_none() && self.can_hold(inside) {
                fs::create_dir_all(self.new.join(inside))?;
                fs::rename(&old, &new)?;
                self.carried.push(told);
            } else {
                self.left.push(told);
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
    use super::super::written;
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
        let note = serde_json::json!({"mos_fusion": 1, "files": listed}).to_string();
        fs::write(folder.join(NOTE_FILE), note).unwrap();
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

    /// A model whose note has hashes, with a report.
    fn hashed(folder: &Path, files: &[(&str, &str)]) {
        write(folder, files);
        let names: Vec<String> = files.iter().map(|(name, _)| name.to_string()).collect();
        written::note(folder, serde_json::json!({"mos_fusion": 1}), &names).unwrap();
    }

    #[test]
    fn what_was_edited_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (out, made) = (folder.path().join("both"), folder.path().join("made"));
        let old = [
            ("unet/config.json", "old"),
            ("unet/weights", "old"),
            ("vae/config.json", "old"),
            ("README.md", "old"),
            ("gone.json", "old"),
        ];
        let new =
            [("unet/config.json", "new"), ("unet/weights", "new"), ("vae/config.json", "new")];
        hashed(&out, &old);
        write(&out, &[("report/report.md", "a report"), ("report/report.json", "{}")]);
        written::note_report(&out).unwrap();
        // As it was written: it goes without a trace.
        hashed(&made, &new);
        assert!(put(&made, &out).unwrap().is_empty());
        let left = ["fusion.json", "unet/config.json", "unet/weights", "vae/config.json"];
        assert_eq!(files_in(&out).unwrap(), left);
        assert_eq!(files_in(folder.path()).unwrap().len(), left.len());

        fs::remove_dir_all(&out).unwrap();
        hashed(&out, &old);
        write(&out, &[("report/report.md", "a report"), ("report/report.json", "{}")]);
        written::note_report(&out).unwrap();
        let edits = [
            // Of the same length.
            ("unet/weights", "OLD"),
            ("vae/config.json", "mine"),
            ("README.md", "mine"),
            ("report/report.md", "a report, with my remarks"),
        ];
        write(&out, &edits);
        let note = read(out.join(NOTE_FILE));
        fs::write(out.join(NOTE_FILE), note.replacen('{', "{\n  \"mine\": 1,", 1)).unwrap();
        hashed(&made, &new);
        let notes = put(&made, &out).unwrap();
        let aside = folder.path().join("both.old");
        for (path, text) in [
            (out.join("unet/config.json"), "new"),
            (out.join("unet/weights"), "new"),
            (out.join("vae/config.json"), "new"),
            (out.join("README.md"), "mine"),
            (out.join("report/report.md"), "a report, with my remarks"),
            (aside.join("unet/weights"), "OLD"),
            (aside.join("vae/config.json"), "mine"),
        ] {
            assert_eq!(read(path.clone()), text, "{}", path.display());
        }
        assert!(read(aside.join(NOTE_FILE)).contains("mine"));
        let kept = ["fusion.json", "unet/weights", "vae/config.json"];
        assert_eq!(files_in(&aside).unwrap(), kept);
        assert!(!out.join("gone.json").exists() && !out.join("report/report.json").exists());
        assert!(notes[0].contains("README.md (edited since it was fused)"), "{notes:?}");
        assert!(notes[1].contains("unet/weights (edited since it was fused)"), "{notes:?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_model_in_closed_folders_is_told_before() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("both");
        hashed(&out, &[("unet/config.json", "old"), ("model_index.json", "old")]);
        for closed in ["", "unet"] {
            let mode = |mode| {
                let permissions = fs::Permissions::from_mode(mode);
                fs::set_permissions(out.join(closed), permissions).unwrap();
            };
            check_output(&out, true).unwrap();
            mode(0o555);
            let error = check_output(&out, true).unwrap_err();
            mode(0o755);
            let Error::Io { path, source, .. } = error else { panic!("{error}") };
            assert_eq!(path, out.join(closed));
            assert_eq!(source.kind(), io::ErrorKind::PermissionDenied);
        }
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
