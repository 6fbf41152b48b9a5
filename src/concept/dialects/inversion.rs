//! Textual inversions: embeddings of words and nothing else.

use std::path::{Path, PathBuf};

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

/// What stands for a word's rows where one embedding is for all layers: for each of its vectors
/// their mean, `[vectors, width]`.
pub fn mean(vectors: &[&Word]) -> Array {
    let mut values = Vec::new();
    for word in vectors {
        let rows = word.rows(Network::TextEncoder);
        let (layers, width) = (rows.shape.rows().max(1), rows.shape.channels());
        let mut sums = vec![0f64; width];
        for row in rows.values().chunks_exact(width.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
        }
        values.extend(sums.into_iter().map(|sum| (sum / layers as f64) as f32));
    }
    Array::f32([vectors.len(), values.len() / vectors.len().max(1)], values)
}

/// The files of a concept's words beside `path`, each with the vectors of its word: letters and
/// digits of the word are in its name, and where two would have the same, a number.
pub fn beside<'c>(path: &Path, concept: &'c Concept) -> Vec<(PathBuf, Vec<&'c Word>)> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut files: Vec<(PathBuf, Vec<&Word>)> = Vec::new();
    for vectors in concept.spoken() {
        let text = vectors.first().map_or("", |word| word.text.as_str());
        let plain = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_');
        let name = format!("{stem}.{}", text.chars().filter(plain).collect::<String>());
        let numbered = (2..).map(|n| format!("{name}-{n}.safetensors"));
        let names = std::iter::once(format!("{name}.safetensors")).chain(numbered);
        // Some file systems do not tell case.
        let is_free = |file: &PathBuf| {
            let lower = |file: &Path| file.to_string_lossy().to_lowercase();
            lower(file) != lower(path) && files.iter().all(|(other, _)| lower(other) != lower(file))
        };
        let file = names.map(|name| path.with_file_name(name)).find(is_free);
        files.extend(file.map(|file| (file, vectors)));
    }
    files
}
