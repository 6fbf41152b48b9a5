//! Textual inversions: embeddings of words and nothing else.

use std::path::Path;

use crate::checkpoint::{TensorFile, embeddings};
use crate::concept::{Concept, Error, Network, Result, Word};
use crate::graph::Array;

use super::Read;
use super::gather::words;

pub fn is_it(file: &TensorFile) -> bool {
    embeddings(file).is_some()
}

pub fn read(file: &TensorFile) -> Result<Read> {
    let mut concept = Concept::default();
    for embedding in embeddings(file).unwrap_or_default() {
        concept.words.extend(words(file, &embedding.tensor, &embedding.word)?);
    }
    Ok(Read { concept, notes: Vec::new() })
}

/// An embedding of a model that has two text encoders.
pub fn of_xl(file: &TensorFile) -> Error {
    let problem = "an embedding of Stable Diffusion XL (`clip_g` is of its second text encoder), \
        which is not supported; those of \
                   Stable Diffusion 1.x and 2.x are";
    Error::File { path: file.path().to_path_buf(), problem: problem.to_string() }
}

/// What stands for a word's rows where only one is possible, `[1, width]`: their mean.
pub fn mean(word: &Word) -> Array {
    let rows = word.rows(Network::TextEncoder);
    let (layers, width) = (rows.shape.rows().max(1), rows.shape.channels());
    let mut sums = vec![0f64; width];
    for row in rows.values().chunks_exact(width.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    Array::f32([1, width], sums.into_iter().map(|sum| (sum / layers as f64) as f32).collect())
}

/// The file of a word beside `path`: letters and digits of the word in its name.
pub fn beside(path: &Path, word: &Word) -> std::path::PathBuf {
    let plain: String =
        word.text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!("{stem}.{plain}.safetensors"))
}
