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

/// Writes a file, whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = mixofshow::output::write(path, |out| out.write_all(bytes));
    Ok(written.map_err(|source| Unwritable { path: path.to_path_buf(), source })?)
}

/// Makes the folder that a file is to be in, if it is missing.
pub fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let Some(folder) = folder else {
        return Ok(());
    };
    Ok(std::fs::create_dir_all(folder).map_err(|source| Unwritable { path: folder.to_path_buf(), source })?)
}
