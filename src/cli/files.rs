//! Files and folders: of models, for output, and the streams that stand for files.
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use mixofshow::file_kind::{self, FileKind};
use mixofshow::picture::{self, Parameters, Picture};
use mixofshow::pipeline::latents;
use mixofshow::training::{self, Places};
use mixofshow::{fusion, output};

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

/// A place that cannot be written: wrong usage, where another name would help.
pub fn unwritable(path: &Path, source: std::io::Error) -> Failure {
    let about_the_name = output::is_about_the_name(&source);
    let error = Unwritable { path: path.to_path_buf(), source };
    if about_the_name { Failure::Usage(error.to_string()) } else { error.into() }
}

/// Whether a file could be written there, before any work. Nothing is made.
pub fn check(path: &Path) -> Result<()> {
    output::check(path).map_err(|source| unwritable(path, source))
}

/// An error where writing to `output` would replace one of a command's own inputs.
pub fn check_apart<'p>(output: &Path, inputs: impl IntoIterator<Item = &'p PathBuf>) -> Result<()> {
    match inputs.into_iter().find(|input| output::would_replace(output, input)) {
        Some(input) if input.is_dir() => Err(Failure::Usage(format!(
            "{} would be replaced, which is in {}, an input of this command: name another file",
            output.display(),
            input.display()
        ))),
        Some(input) => Err(Failure::Usage(format!(
            "{} would be replaced, an input of this command: name another file than {}",
            input.display(),
            output.display()
        ))),
        None => Ok(()),
    }
}

/// Whether files could be written into that folder, before any work. Nothing is made.
pub fn check_folder(path: &Path) -> Result<()> {
    output::check_folder(path).map_err(|source| unwritable(path, source))
}

/// Whether a picture could be written there, before any work. Nothing is made.
pub fn check_picture(path: &Path) -> Result<()> {
    if is_stream(path) {
        return Ok(());
    }
    picture::check_destination(path).map_err(|error| match error {
        picture::Error::Unwritable { path, source } => unwritable(&path, source),
        other => Failure::Usage(other.to_string()),
    })?;
    // What is called as a picture has been one, or was to be.
    let called = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
    refuse_other(path, "a picture", |kind| called || kind == FileKind::Png)
}

/// Whether latents could be written there, before any work. Nothing is made.
pub fn check_latents(path: &Path) -> Result<()> {
    check(path)?;
    refuse_other(path, "latents", |_| latents::read(path).is_ok())
}

/// An error where a file stands that is not `what` is written: it is somebody's work.
fn refuse_other(path: &Path, what: &str, is_it: impl Fn(FileKind) -> bool) -> Result<()> {
    if !output::is_replaced(path) {
        return Ok(());
    }
    match FileKind::of_file(path) {
        Ok(kind) if kind != FileKind::Empty && !is_it(kind) => Err(Failure::Usage(format!(
            "{}: it is there already and is {}, not {what}: name another file",
            path.display(),
            kind.describe()
        ))),
        // One that cannot be read is told of when it is written.
        _ => Ok(()),
    }
}

/// Whether a concept could be trained to that file, with what stands beside it, before any work.
/// Nothing is made.
pub fn check_run(output: &Path) -> Result<()> {
    Places::of(output).check().map_err(|error| match error {
        training::Error::Unwritable { path, source } => unwritable(&path, source),
        other => other.into(),
    })
}

/// Whether a fused model could be written there, before any work. Nothing is made.
pub fn check_fused(path: &Path, replace: bool) -> Result<()> {
    fusion::check_output(path, replace).map_err(|error| match error {
        fusion::Error::Io { path, source, .. } => unwritable(&path, source),
        other => Failure::Usage(other.to_string()),
    })
}

/// Writes a file, whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = output::write(path, |out| out.write_all(bytes));
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

/// All of standard input, as text; `option` asked for it.
pub fn standard_input(option: &str, expected: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .and_then(|_| file_kind::text_of(bytes, expected));
    read.map_err(|e| Failure::Failed(format!("{option} {STANDARD}: standard input: {e}").into()))
}

/// A file of text, or standard input.
pub fn text(option: &str, path: &Path, expected: &str) -> Result<String> {
    if is_stream(path) {
        return standard_input(option, expected);
    }
    file_kind::read_text(path, expected)
        .map_err(|e| Failure::Failed(format!("{option} {}: {e}", path.display()).into()))
}

/// Makes the folder that a file is to be in, if it is missing.
pub fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let Some(folder) = folder else {
        return Ok(());
    };
    Ok(std::fs::create_dir_all(folder)
        .map_err(|source| Unwritable { path: folder.to_path_buf(), source })?)
}
