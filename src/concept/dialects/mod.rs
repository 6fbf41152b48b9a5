//! Concepts and LoRAs as other programs write them.

use std::path::Path;

use crate::checkpoint::TensorFile;

use super::{Concept, Result};

/// Reads a concept or LoRA of any dialect, told apart by its contents. Besides come sentences for the user: what was assumed.
///
/// # Errors
/// A file of no dialect that is known; one whose contents contradict each other, with the tensor that does.
pub fn read(path: &Path) -> Result<(Concept, Vec<String>)> {
    let file = TensorFile::open(path)?;
    let mut concept = super::file::read(&file)?;
    if concept.name.is_empty() {
        concept.name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    }
    Ok((concept, Vec::new()))
}
