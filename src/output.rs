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

/// Writes a file beside its final name with `fill`, flushes it to the disk and renames it. If anything fails, nothing is left
/// behind, and a file that was there before is unchanged. A symbolic link stays one; devices and pipes are written to.
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
    // So that the new name, too, survives a loss of power; the contents are safe already, so a failure is no error.
    #[cfg(unix)]
    let _ = File::open(folder(&path)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Whether [`write()`] could write to `path`, as far as can be told before: long work should not end in a closed folder.
///
/// # Errors
/// Those that [`write()`] would meet.
pub fn check(path: &Path) -> io::Result<()> {
    Target::open(path).map(drop)
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        let path = match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => fs::canonicalize(path)?,
            _ => path.to_path_buf(),
        };
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => return File::options().write(true).open(&path).map(Target::Straight),
            // A file that is closed to us is not replaced either, although the folder would allow it.
            Ok(found) if found.permissions().readonly() => return Err(io::ErrorKind::PermissionDenied.into()),
            _ => {}
        }
        let mut builder = tempfile::Builder::new();
        builder.prefix(".mos-").suffix(".tmp");
        // As any new file, not as a secret one; the process's mask still applies.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // The library adds the temporary name to the text of its errors, which means nothing to the user.
        let plain = |e: io::Error| e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error);
        let file = builder.tempfile_in(folder(&path)).map_err(plain)?;
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
        let fail = |out: &mut dyn Write| out.write_all(b"half").and_then(|()| Err(io::ErrorKind::StorageFull.into()));
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
        assert_eq!(check(&folder.path().join("no/a")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let path = folder.path().join("closed");
        fs::write(&path, "").unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        assert_eq!(check(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
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
