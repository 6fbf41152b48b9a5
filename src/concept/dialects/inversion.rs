//! Textual inversions: embeddings of words and nothing else.

use std::path::{Path, PathBuf};

use crate::checkpoint::{TensorFile, embeddings, is_xl_embedding, xl_embeddings};
use crate::concept::{Concept, Network, Result, Word};
use crate::graph::Array;

use super::Read;
use super::gather::{join_words, words, words_of};

pub fn is_it(file: &TensorFile) -> bool {
    embeddings(file).is_some() || is_xl_embedding(file)
}

pub fn read(file: &TensorFile) -> Result<Read> {
    let mut concept = Concept::default();
    if is_xl_embedding(file) {
        for embedding in xl_embeddings(file) {
            let encoder = match embedding.tensor.as_str() {
                CLIP_L => Network::TextEncoder,
                _ => Network::TextEncoder2,
            };
            let found = words_of(file, &embedding.tensor, &embedding.word, encoder)?;
            join_words(file, &embedding.tensor, &mut concept.words, found)?;
        }
    }
    for embedding in embeddings(file).unwrap_or_default() {
        concept.words.extend(words(file, &embedding.tensor, &embedding.word)?);
    }
    Ok(Read { concept, notes: Vec::new() })
}

/// What the vectors of Stable Diffusion XL's two text encoders are called.
const CLIP_L: &str = "clip_l";
const CLIP_G: &str = "clip_g";

/// The tensors of a word where one embedding is for all layers, each with its text encoder's name
/// where there are two.
pub fn tensors(vectors: &[&Word]) -> Vec<(Option<&'static str>, Array)> {
    let (first, second) =
        (mean(vectors, Network::TextEncoder), mean(vectors, Network::TextEncoder2));
    match (first.values().is_empty(), second.values().is_empty()) {
        (_, true) => vec![(None, first)],
        (true, false) => vec![(Some(CLIP_G), second)],
        (false, false) => vec![(Some(CLIP_L), first), (Some(CLIP_G), second)],
    }
}

/// What stands for a word's rows where one embedding is for all layers: for each of its vectors
/// their mean, `[vectors, width]`.
fn mean(vectors: &[&Word], encoder: Network) -> Array {
    let mut values = Vec::new();
    for word in vectors {
        let rows = word.rows(encoder);
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
