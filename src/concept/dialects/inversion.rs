//! Textual inversions: embeddings of words and nothing else, `<word>`, `emb_params` or `string_to_param.*`.

use std::path::Path;

use crate::checkpoint::TensorFile;
use crate::concept::{Concept, Result, Word};
use crate::graph::Array;

use super::Read;
use super::gather::{stranger, words};

/// Vectors that one word may have.
const MOST_VECTORS: usize = 128;

/// The word of a tensor, if it is one; `alone`: there is no other tensor.
fn word<'a>(file: &'a TensorFile, name: &'a str, alone: bool) -> Option<String> {
    let view = file.tensor(name)?;
    let fits = match view.shape() {
        [_] => true,
        [vectors, _] => (1..=MOST_VECTORS).contains(vectors),
        _ => false,
    };
    let stem = || file.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let word = match name {
        // Without a name of its own a word is called like its file, as in web UIs.
        "emb_params" | "string_to_param.*" => stem()?,
        name if name.starts_with('<') && name.ends_with('>') => name.to_string(),
        name if alone && !name.contains('.') => name.to_string(),
        _ => return None,
    };
    (fits && view.dtype().is_float()).then_some(word)
}

pub fn is_it(file: &TensorFile) -> bool {
    !file.is_empty() && file.names().all(|name| word(file, name, file.len() == 1).is_some())
}

pub fn read(file: &TensorFile) -> Result<Read> {
    let mut concept = Concept::default();
    for name in file.names() {
        let text = word(file, name, file.len() == 1).ok_or_else(|| stranger(file, name, "textual inversions"))?;
        concept.words.extend(words(file, name, &text)?);
    }
    Ok(Read { concept, notes: Vec::new() })
}

/// What stands for a word's rows where only one is possible, `[1, width]`: their mean.
pub fn mean(word: &Word) -> Array {
    let (layers, width) = (word.layers().max(1), word.width());
    let mut sums = vec![0f64; width];
    for row in word.rows.values().chunks_exact(width.max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
    }
    Array::f32([1, width], sums.into_iter().map(|sum| (sum / layers as f64) as f32).collect())
}

/// The file of a word beside `path`: letters and digits of the word in its name.
pub fn beside(path: &Path, word: &Word) -> std::path::PathBuf {
    let plain: String = word.text.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!("{stem}.{plain}.safetensors"))
}
