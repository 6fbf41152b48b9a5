//! Settings of a tuning run: what may be given ([`Options`]) by flags, by a TOML file or by the
//! method's own YAML, and what is made of it ([`Settings`]).

mod names;
mod node;
mod options;
mod published;
mod ranges;
mod settings;
mod template;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::file_kind::{FileKind, read_text};

pub use names::{Decay, Kind};
pub use options::{Options, PictureFolder, repeatable_seed};
pub use settings::{Initializer, Settings};
pub use template::template;

/// What can be wrong with settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system cannot read the file.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file that is not of the format.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A key of a file, by its place.
    #[error("{}: `{key}` is {found}: expected {expected}", path.display())]
    Key {
        /// The file or folder.
        path: PathBuf,
        /// Its place in the file.
        key: String,
        /// What was found.
        found: String,
        /// What is right in its place.
        expected: String,
    },
    /// All that is wrong with the settings as a whole.
    #[error("{}", .0.join("\n"))]
    Settings(Vec<String>),
}

impl Error {
    fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
        move |source| Error::Unreadable { path: path.to_path_buf(), source }
    }
}

/// Of the calls that read settings.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Reads a settings file: TOML, the same keys as JSON, or the method's published YAML or JSON (with
/// the concept list in JSON that it names). Besides come sentences for the user: what of a
/// published file means nothing here.
///
/// # Errors
/// A file that cannot be read; a key or value that is wrong, with its place.
pub fn read(path: &Path) -> Result<(Options, Vec<String>)> {
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    match ending.as_ref().and_then(|ending| ending.to_str()) {
        Some("yml" | "yaml") => published::read(path),
        Some("json") => read_json(path),
        _ if FileKind::of_file(path).map_err(Error::unreadable(path))? == FileKind::Json => {
            read_json(path)
        }
        _ => Ok((Options::read_toml(path)?, Vec::new())),
    }
}

fn read_json(path: &Path) -> Result<(Options, Vec<String>)> {
    let invalid = |problem: String| Error::Invalid { path: path.to_path_buf(), problem };
    let text = read_text(path, "settings (JSON)").map_err(Error::unreadable(path))?;
    let value: Value =
        serde_json::from_str(&text).map_err(|e| invalid(format!("not valid JSON: {e}")))?;
    match &value {
        // What only the published files have.
        Value::Object(keys) if keys.contains_key("datasets") => published::read(path),
        Value::Object(_) => Ok((Options::of_json(path, value)?, Vec::new())),
        Value::Array(_) => Err(invalid(
            "a list, not settings: the method's lists of concepts are named by `concept_list` in \
                its settings"
                .into(),
        )),
        other => Err(invalid(format!("{other}, expected an object of settings"))),
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests;
