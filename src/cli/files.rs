//! Folders: of models, and for output files.
use std::path::{Path, PathBuf};

use super::Result;

/// A file or folder that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be written: {source}", path.display())]
pub struct Unwritable {
    pub path: PathBuf,
    pub source: std::io::Error,
}

/// The folder in which models are looked for by name: what the variable MOS_MODELS says.
pub fn models() -> Option<PathBuf> {
    std::env::var_os("MOS_MODELS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Makes the folder that a file is to be in, if it is missing.
pub fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let Some(folder) = folder else {
        return Ok(());
    };
    Ok(std::fs::create_dir_all(folder).map_err(|source| Unwritable { path: folder.to_path_buf(), source })?)
}
