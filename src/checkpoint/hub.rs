//! Folders of Hugging Face's cache: `models--<owner>--<name>`, with what was downloaded under
//! `snapshots/<revision>`.
use super::Error;
use std::path::{Path, PathBuf};

/// The folder that a cache folder means: the snapshot that `refs/main` names, else the only one.
/// Other paths stay.
///
/// # Errors
/// A cache folder with several snapshots, or with none.
pub fn snapshot(path: &Path) -> Result<PathBuf, Error> {
    let snapshots = path.join("snapshots");
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("models--"));
    // A model's own folder may have a folder of that name.
    if !snapshots.is_dir() || (!named && !path.join("refs").is_dir()) {
        return Ok(path.to_path_buf());
    }
    let main = std::fs::read_to_string(path.join("refs").join("main")).unwrap_or_default();
    let main = main.trim();
    if !main.is_empty()
        && !main.contains(['/', '\\'])
        && main != ".."
        && snapshots.join(main).is_dir()
    {
        return Ok(snapshots.join(main));
    }
    let entries = std::fs::read_dir(&snapshots).map_err(Error::io(&snapshots, "read"))?;
    let mut all: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    all.sort();
    match &all[..] {
        [only] => Ok(only.clone()),
        [] => Err(Error::Unrecognised {
            path: snapshots,
            problem: "a cache folder without any snapshot".to_string(),
        }),
        [first, ..] => Err(Error::Unrecognised {
            path: path.to_path_buf(),
            problem: format!(
                "a cache folder with {} snapshots, and refs/main names none of them: name one, \
                    such as {}",
                all.len(),
                first.display()
            ),
        }),
    }
}

/// The name of the cache folder of a model that is called `owner/name`.
pub(super) fn folder_of(name: &str) -> Option<String> {
    let (owner, model) = name.split_once('/')?;
    let plain = |part: &str| !part.is_empty() && !part.contains(['/', '\\']) && part != "..";
    (plain(owner) && plain(model)).then(|| format!("models--{owner}--{model}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_folder_means_its_snapshot() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("models--a--b");
        assert_eq!(snapshot(folder.path()).unwrap(), folder.path());
        std::fs::create_dir_all(cache.join("snapshots")).unwrap();
        assert!(snapshot(&cache).unwrap_err().to_string().contains("without any snapshot"));
        std::fs::create_dir_all(cache.join("snapshots/one")).unwrap();
        assert_eq!(snapshot(&cache).unwrap(), cache.join("snapshots/one"));
        std::fs::create_dir_all(cache.join("snapshots/two")).unwrap();
        let error = snapshot(&cache).unwrap_err().to_string();
        assert!(error.contains("2 snapshots") && error.contains("one"), "{error}");
        std::fs::create_dir_all(cache.join("refs")).unwrap();
        std::fs::write(cache.join("refs/main"), "two\n").unwrap();
        assert_eq!(snapshot(&cache).unwrap(), cache.join("snapshots/two"));
        // What leads out of it is not followed.
        std::fs::write(cache.join("refs/main"), "../refs").unwrap();
        assert!(snapshot(&cache).is_err());
        assert_eq!(folder_of("a/b").as_deref(), Some("models--a--b"));
        assert_eq!(
            [folder_of("a"), folder_of("a/b/c"), folder_of("../b"), folder_of("/b")],
            [None, None, None, None]
        );
    }
}
