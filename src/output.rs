//! Output files appear whole or not at all.
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Where the bytes go before the file is whole.
enum Target {
    /// Beside the final name, under which it is moved at the end.
    Beside(NamedTempFile, PathBuf),
    /// Straight there: a device or a pipe cannot be replaced.
    Straight(File),
}

/// Writes a file beside its final name with `fill`, flushes it to the disk and renames it. If
/// anything fails, nothing is left behind, and a file that was there before is unchanged. A
/// symbolic link stays one; devices and pipes are written to.
///
/// # Errors
/// The system's, or `fill`'s; the caller knows the file's name.
pub fn write(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut target = Target::open(path)?;
    let mut out = BufWriter::new(match &mut target {
        Target::Beside(file, _) => file.as_file_mut(),
        Target::Straight(file) => file,
    });
    fill(&mut out).and_then(|()| out.flush())?;
    drop(out);
    let Target::Beside(file, path) = target else {
        return Ok(());
    };
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|e| e.error)?;
    // So that the new name, too, survives a loss of power; the contents are safe already, so a
    // failure is no error.
    #[cfg(unix)]
    let _ = File::open(folder(&path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// The folder where this user's programs keep what they would else find out again: `MOS_CACHE` in
/// the environment, or the system's own. None where that is `off`, or where there is no home.
pub fn cache_folder() -> Option<PathBuf> {
    match std::env::var_os("MOS_CACHE").filter(|folder| !folder.is_empty()) {
        Some(off) if off.eq_ignore_ascii_case("off") => None,
        Some(folder) => Some(folder.into()),
        None => Some(directories::ProjectDirs::from("", "", "mos")?.cache_dir().to_path_buf()),
    }
}

/// Whether [`write()`] could write to `path`, as far as can be told before: long work should not
/// end in a closed folder. Folders that are missing are not made; that they could be is checked.
///
/// # Errors
/// Those that [`write()`] would meet, and a name that is a folder's.
pub fn check(path: &Path) -> io::Result<()> {
    if path.file_name().is_none() || ends_as_a_folder(path) {
        return Err(match path.as_os_str().is_empty() {
            true => io::Error::new(io::ErrorKind::InvalidInput, "the name is empty"),
            false => io::Error::new(
                io::ErrorKind::IsADirectory,
                "that names a folder, and a file is to be written",
            ),
        });
    }
    match fs::symlink_metadata(path) {
        // A device in a closed folder can be written to, and so can what a link there points to.
        Ok(_) => Target::open(path).map(drop),
        Err(error) if error.kind() == io::ErrorKind::NotFound => room(path),
        Err(error) => Err(error),
    }
}

/// Whether files could be written into the folder `path`, which may be missing: then it is checked
/// that it could be made.
///
/// # Errors
/// A file of that name; a folder that is closed to us; a name that no folder can have.
pub fn check_folder(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is empty"));
    }
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(no_folder()),
        Ok(_) => temporary(path).map(drop),
        // A link that points nowhere.
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            Err(no_folder())
        }
        Err(_) => room(path),
    }
}

/// Whether a folder could be made at `path` and moved there as a whole. One that is there already
/// is for the caller to judge.
///
/// # Errors
/// `.`, `..` and `/`, which have no name of their own; a symbolic link, behind which nothing is
/// replaced; else as [`check_folder`].
pub fn check_whole_folder(path: &Path) -> io::Result<()> {
    let wrong = |problem| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    let path = &plain(path);
    match fs::symlink_metadata(path) {
        _ if path.as_os_str().is_empty() => wrong("the name is empty"),
        _ if path.file_name().is_none() => {
            wrong("a folder with a name of its own is to be made: name one inside of it")
        }
        Ok(found) if found.is_symlink() => {
            wrong("it is a symbolic link, behind which nothing is replaced: name the folder itself")
        }
        Ok(found) if !found.is_dir() => Err(no_folder()),
        _ => room(path),
    }
}

/// The same path without a slash or a dot at its end, which would look through a symbolic link.
pub fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// Whether [`write()`] would replace what is at `path`: a file is replaced, a device or a pipe is
/// written to.
pub fn is_replaced(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file())
}

/// Whether both names lead to one file or folder that is there, however they are written.
pub fn is_same(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let place = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        if matches!((place(a), place(b)), (Ok(a), Ok(b)) if a == b) {
            return true;
        }
    }
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// Whether writing to `output` would replace `input`: both are one file, or `input` is a folder in
/// which it is.
pub fn would_replace(output: &Path, input: &Path) -> bool {
    if !is_replaced(output) {
        return false;
    }
    if fs::metadata(input).is_ok_and(|found| found.is_dir()) {
        let whole = fs::canonicalize(output).unwrap_or_default();
        return whole.ancestors().skip(1).any(|folder| is_same(folder, input));
    }
    is_same(output, input)
}

/// Whether an error of these functions is about the name that was given: another one would help,
/// trying again would not.
pub fn is_about_the_name(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory,
    };
    matches!(
        error.kind(),
        AlreadyExists | InvalidFilename | InvalidInput | IsADirectory | NotADirectory
    )
}

fn no_folder() -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, "it is there and not a folder")
}

fn ends_as_a_folder(path: &Path) -> bool {
    let last = path.as_os_str().as_encoded_bytes().last();
    last.is_some_and(|last| std::path::is_separator(char::from(*last)))
}

/// The folder that `path` would be in, or the nearest one above it that is there: it can be written
/// to, and the rest of `path` has names that it can hold.
fn room(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    let found = loop {
        missing.extend(at.file_name());
        at = folder(at);
        // A name that is too long for any folder, a part that is a file, a folder that is closed to
        // us: all but a missing one.
        match fs::metadata(at) {
            Ok(found) => break found,
            Err(error) if error.kind() == io::ErrorKind::NotFound && at != folder(at) => {}
            Err(error) => return Err(error),
        }
    };
    if !found.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            format!("{} is not a folder", at.display()),
        ));
    }
    for name in missing {
        match fs::symlink_metadata(at.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    temporary(at).map(drop)
}

/// A new file in `folder`, which is gone when it is dropped.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".mos-").suffix(".tmp");
    // As any new file, not as a secret one; the process's mask still applies.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // The library adds the temporary name to the text of its errors, which means nothing to the
    // user.
    let plain = |e: io::Error| {
        e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
    };
    builder.tempfile_in(folder).map_err(plain)
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        let path = match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => fs::canonicalize(path)?,
            _ => path.to_path_buf(),
        };
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                return File::options().write(true).open(&path).map(Target::Straight);
            }
            // A file that is closed to us is not replaced either, although the folder would allow
            // it.
            Ok(found) if found.permissions().readonly() => {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = temporary(folder(&path))?;
        Ok(Target::Beside(file, path))
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let fail = |out: &mut dyn Write| {
            out.write_all(b"half").and_then(|()| Err(io::ErrorKind::StorageFull.into()))
        };
        assert_eq!(write(&path, fail).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        check(&path).unwrap();
        assert_eq!(names(folder.path()), ["a"]);
        write(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn what_cannot_be_written_to_is_told_before() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(check(folder.path()).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        // Folders are not made, but could be.
        check(&folder.path().join("no/a")).unwrap();
        check(&folder.path().join("no/nor/a")).unwrap();
        assert!(names(folder.path()).is_empty());
        let path = folder.path().join("closed");
        fs::write(&path, "").unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        assert_eq!(check(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn names_that_cannot_be_are_told_before() {
        use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory};
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        fs::write(at.join("file"), "").unwrap();
        fs::create_dir(at.join("folder")).unwrap();
        let long = "n".repeat(300);
        let kind = |found: io::Result<()>| {
            let error = found.unwrap_err();
            assert!(is_about_the_name(&error), "{error}");
            error.kind()
        };
        for (name, expected) in [
            ("", IsADirectory),
            (".", IsADirectory),
            ("..", IsADirectory),
            ("new/", IsADirectory),
            ("folder", IsADirectory),
            ("file/a", NotADirectory),
            ("file/a/b", NotADirectory),
        ] {
            assert_eq!(kind(check(&at.join(name))), expected, "{name}");
        }
        assert_eq!(kind(check(Path::new(""))), InvalidInput);
        assert_eq!(kind(check(Path::new("/"))), IsADirectory);
        #[cfg(unix)]
        for name in
            [long.clone(), format!("new/{long}"), format!("{long}/a"), format!("new/{long}/a.png")]
        {
            for found in [
                check(&at.join(&name)),
                check_folder(&at.join(&name)),
                check_whole_folder(&at.join(&name)),
            ] {
                assert_eq!(kind(found), InvalidFilename, "{name}");
            }
        }
        assert_eq!(kind(check_folder(&at.join("file"))), NotADirectory);
        assert_eq!(kind(check_folder(&at.join("file/a"))), NotADirectory);
        for name in [".", "folder", "new", "new/new", "folder/new/"] {
            check_folder(&at.join(name)).unwrap();
        }
        for name in [".", "..", "folder/..", "/"] {
            assert_eq!(kind(check_whole_folder(Path::new(name))), InvalidInput, "{name}");
        }
        assert_eq!(kind(check_whole_folder(&at.join("file"))), NotADirectory);
        for name in ["folder", "folder/.", "folder/", "new", "new/new"] {
            check_whole_folder(&at.join(name)).unwrap();
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at.join("folder"), at.join("link")).unwrap();
            std::os::unix::fs::symlink(at.join("nothing"), at.join("lost")).unwrap();
            for name in ["link", "link/", "link/."] {
                assert_eq!(kind(check_whole_folder(&at.join(name))), InvalidInput);
            }
            assert_eq!(kind(check_whole_folder(&at.join("lost"))), InvalidInput);
            assert_eq!(kind(check_folder(&at.join("lost"))), NotADirectory);
            check_folder(&at.join("link")).unwrap();
            check(&at.join("link/a")).unwrap();
            let left = ["file", "folder", "link", "lost"];
            let mut found = names(at);
            found.sort();
            assert_eq!(found, left);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn closed_file_systems_are_told_before_and_are_no_matter_of_the_name() {
        // Nobody, root included, may make files there.
        for found in [
            check(Path::new("/sys/a")),
            check_folder(Path::new("/sys/a")),
            check_whole_folder(Path::new("/sys/a")),
        ] {
            assert!(!is_about_the_name(&found.unwrap_err()));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_reported_and_stays_a_device() {
        use std::os::unix::fs::FileTypeExt;
        let full = Path::new("/dev/full");
        let error = write(full, |out| out.write_all(b"bytes")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(fs::metadata(full).unwrap().file_type().is_char_device());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
