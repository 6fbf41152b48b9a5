//! Files and folders: of models, for output, and the streams that stand for files.
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use mixofshow::file_kind;
use mixofshow::picture::{self, Parameters, Picture};

use super::usage::STANDARD;
use super::{Failure, Result};

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

/// Whether this stands for standard output or input.
pub fn is_stream(path: &Path) -> bool {
    path.as_os_str() == STANDARD
}

/// Writes a picture to its file, or to standard output.
pub fn save(picture: &Picture, to: &Path, parameters: Option<&Parameters>) -> Result<()> {
    if !is_stream(to) {
        return Ok(picture.save(to, parameters)?);
    }
    let mut out = io::stdout().lock();
    match picture.write_to(&mut out, parameters).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::Unread),
        Err(source) => Err(Unwritable { path: "standard output".into(), source }.into()),
        Ok(()) => Ok(()),
    }
}

/// Whether a picture could be written there, before there is one; missing folders are made.
pub fn check_picture(to: &Path) -> Result<()> {
    if is_stream(to) {
        return Ok(());
    }
    make_folder_of(to)?;
    Ok(picture::check_destination(to)?)
}

/// All of standard input, as text; `option` asked for it.
pub fn standard_input(option: &str, expected: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut bytes).and_then(|_| file_kind::text_of(bytes, expected));
    read.map_err(|e| Failure::Failed(format!("{option} {STANDARD}: standard input: {e}").into()))
}

/// A file of text, or standard input.
pub fn text(option: &str, path: &Path, expected: &str) -> Result<String> {
    if is_stream(path) {
        return standard_input(option, expected);
    }
    file_kind::read_text(path, expected).map_err(|e| Failure::Failed(format!("{option} {}: {e}", path.display()).into()))
}

/// Makes the folder that a file is to be in, if it is missing.
pub fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let Some(folder) = folder else {
        return Ok(());
    };
    Ok(std::fs::create_dir_all(folder).map_err(|source| Unwritable { path: folder.to_path_buf(), source })?)
}
