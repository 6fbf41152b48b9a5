//! Sizes of kernels that were measured for an adapter: shipped ones, and the user's own.

use std::fmt;
use std::path::{Path, PathBuf};

use super::template::shipped_sizes;
use super::tuned::Tuned;

/// The variable that says `off`, so that the standard sizes are used whatever was measured, or
/// names a folder in which to look instead of the user's cache.
pub const TUNED_VARIABLE: &str = "MOS_TUNED";

/// Where an adapter's sizes are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeasuredSizes {
    /// Nobody has measured it, so far as is known.
    Standard,
    /// [`TUNED_VARIABLE`] says so.
    Off,
    /// Shipped with this program, in `kernels/tuned/`.
    Shipped,
    /// A file of the user's.
    File(PathBuf),
}

impl fmt::Display for MeasuredSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MeasuredSizes::Standard => f.write_str("standard, not measured here"),
            MeasuredSizes::Off => write!(f, "standard ({TUNED_VARIABLE} is off)"),
            MeasuredSizes::Shipped => f.write_str("measured on such an adapter, as shipped"),
            MeasuredSizes::File(path) => write!(f, "measured here: {}", path.display()),
        }
    }
}

/// An adapter's name as the name of its file.
fn slug(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let parts: Vec<&str> = plain.split('-').filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// The file of the user's with the sizes for the adapter of that name, whether or not it is there;
/// none where there is no cache folder, or measured sizes are off.
pub fn sizes_file(adapter: &str) -> Option<PathBuf> {
    let named = std::env::var_os(TUNED_VARIABLE).filter(|value| !value.is_empty());
    let folder = match named {
        Some(value) if value == "off" => return None,
        Some(value) => PathBuf::from(value),
        None => directories::ProjectDirs::from("", "", "mos")?.cache_dir().join("tuned"),
    };
    Some(folder.join(format!("{}.toml", slug(adapter))))
}

/// The sizes for an adapter, and where they are from.
///
/// # Errors
/// A file of the user's that cannot be read, or says what kernels are not written for.
pub(super) fn sizes(info: &wgpu::AdapterInfo) -> Result<(Tuned, MeasuredSizes), String> {
    let base = Tuned::unmeasured(info.device_type == wgpu::DeviceType::Cpu);
    // Without a driver there is nothing to be measured.
    if info.backend == wgpu::Backend::Noop {
        return Ok((base, MeasuredSizes::Standard));
    }
    if std::env::var_os(TUNED_VARIABLE).is_some_and(|value| value == "off") {
        return Ok((base, MeasuredSizes::Off));
    }
    if let Some(path) = sizes_file(&info.name) {
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let tuned = laid_over(base, &text).map_err(|problem| {
                    format!(
                        "{}: {problem}; `{TUNED_VARIABLE}=off` ignores such files",
                        path.display()
                    )
                })?;
                return Ok((tuned, MeasuredSizes::File(path)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(told(&path, &error)),
        }
    }
    match shipped_sizes(&slug(&info.name)) {
        Some(text) => Ok((laid_over(base, text)?, MeasuredSizes::Shipped)),
        None => Ok((base, MeasuredSizes::Standard)),
    }
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}; `{TUNED_VARIABLE}=off` ignores it", path.display())
}

/// The table with what a file says in the place of what it had.
fn laid_over(base: Tuned, text: &str) -> Result<Tuned, String> {
    let over: toml::Table = toml::from_str(text).map_err(|error| error.message().to_string())?;
    let mut table = toml::Table::try_from(base).map_err(|error| error.to_string())?;
    for (family, sizes) in over {
        match (table.get_mut(&family), sizes) {
            (Some(toml::Value::Table(own)), toml::Value::Table(sizes)) => own.extend(sizes),
            (_, sizes) => {
                table.insert(family, sizes);
            }
        }
    }
    let tuned: Tuned =
        table.try_into().map_err(|error: toml::de::Error| error.message().to_string())?;
    tuned.check()?;
    Ok(tuned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_say_what_differs() {
        assert_eq!(slug("llvmpipe (LLVM 15.0.6, 256 bits)"), "llvmpipe-llvm-15-0-6-256-bits");
        let base = Tuned::unmeasured(true);
        let over = laid_over(base, "[matmul]\nrows = 8\n").unwrap();
        assert_eq!((over.matmul.rows, over.matmul.lanes), (8, base.matmul.lanes));
        assert!(!over.matrices);
        for (text, says) in [
            ("[matmul]\nrows = 800\n", "matmul.rows is 800, expected 1 to 64"),
            ("[matmul]\nrow = 8\n", "unknown field"),
            ("[matmull]\nrows = 8\n", "unknown field"),
            ("[matmul\n", ""),
        ] {
            let said = laid_over(base, text).unwrap_err();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn shipped_files_can_be_used() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/tuned");
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap();
            laid_over(Tuned::STANDARD, &text).unwrap();
        }
    }
}
