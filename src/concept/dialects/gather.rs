//! Updates on their way from a file's tensors to a concept.

use std::collections::BTreeMap;

use crate::checkpoint::TensorFile;
use crate::concept::parts::{Names, Part};
use crate::concept::tensors::{numbers, tensor_error};
use crate::concept::{Error, Network, Result, Update, UpdateSet, Updates, Word};
use crate::graph::Array;
use crate::watch::Parts;

/// All updates of a file, by network and canonical layer name.
#[derive(Debug, Default)]
pub struct Gathered(BTreeMap<(Network, String), Names>);

impl Gathered {
    /// Notes a tensor of a file as a part of a layer's update.
    ///
    /// # Errors
    /// Another tensor is that part already: two names can mean one layer.
    pub fn add(
        &mut self,
        file: &TensorFile,
        tensor: &str,
        network: Network,
        layer: String,
        part: Part,
    ) -> Result<()> {
        match self.0.entry((network, layer)).or_default().add(part, tensor) {
            None => Ok(()),
            Some(other) => {
                Err(tensor_error(file, tensor, format!("it means the same as `{other}`")))
            }
        }
    }

    /// Of each layer: its network, its name, its tensors' names.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Network, &str, &mut Names)> {
        self.0.iter_mut().map(|((network, layer), names)| (*network, layer.as_str(), names))
    }

    /// Reads the tensors. Where all layers of a network have one scale, it is the set's; otherwise
    /// it goes into the matrices. `progress` is told of layers.
    pub fn read(self, file: &TensorFile, progress: &mut Parts) -> Result<Updates> {
        let mut sets: BTreeMap<Network, Found> = BTreeMap::new();
        let of = self.0.len();
        for (done, ((network, layer), names)) in self.0.into_iter().enumerate() {
            progress(done, of)?;
            let found = names.assemble(file)?;
            let set = sets.entry(network).or_default();
            set.biases.extend(found.bias.map(|bias| (layer.clone(), bias)));
            set.layers.extend(found.weight.map(|weight| (layer, weight, found.scale)));
        }
        Ok(sets.into_iter().map(|(network, found)| (network, found.set())).collect())
    }
}

/// The updates of a network, each with its scale.
#[derive(Default)]
struct Found {
    layers: Vec<(String, Update, f32)>,
    /// Biases have none.
    biases: BTreeMap<String, Update>,
}

impl Found {
    fn set(self) -> UpdateSet {
        let common = self.layers.first().map_or(1.0, |(_, _, scale)| *scale);
        let same = self.layers.iter().all(|(_, _, scale)| *scale == common)
            && (self.biases.is_empty() || common == 1.0);
        let with = |(layer, update, scale): (String, Update, f32)| {
            (layer, if same { update } else { update.scaled(scale) })
        };
        let layers = self.layers.into_iter().map(with).collect();
        UpdateSet { scale: if same { common } else { 1.0 }, layers, biases: self.biases }
    }
}

/// The words of a textual inversion's vectors `[width]` or `[vectors, width]`: `<a>`, and for
/// further vectors `<a>_1` and on.
pub fn words(file: &TensorFile, tensor: &str, text: &str) -> Result<Vec<Word>> {
    words_of(file, tensor, text, Network::TextEncoder)
}

/// As [`words`], of a text encoder.
pub fn words_of(
    file: &TensorFile,
    tensor: &str,
    text: &str,
    encoder: Network,
) -> Result<Vec<Word>> {
    let vectors =
        numbers(file, tensor)?.ok_or_else(|| tensor_error(file, tensor, "it is missing".into()))?;
    let width = match vectors.shape[..] {
        [width] | [_, width] => width,
        _ => {
            return Err(tensor_error(
                file,
                tensor,
                format!("shape {} where [vectors, width] is expected", vectors.shape),
            ));
        }
    };
    let word = |(index, vector): (usize, &[f32])| {
        let text = if index == 0 { text.to_string() } else { format!("{text}_{index}") };
        let rows = Array::f32([1, width], vector.to_vec());
        Word { text, initializer: None, rows: [(encoder, rows)].into() }
    };
    Ok(vectors.values().chunks_exact(width).enumerate().map(word).collect())
}

/// Takes in words of one text encoder beside those of another.
///
/// # Errors
/// Another number of vectors, where `tensor` is that of the words that come.
pub fn join_words(
    file: &TensorFile,
    tensor: &str,
    words: &mut Vec<Word>,
    more: Vec<Word>,
) -> Result<()> {
    let Some(text) = more.first().map(|word| word.text.clone()) else { return Ok(()) };
    let Some(start) = words.iter().position(|word| word.text == text) else {
        words.extend(more);
        return Ok(());
    };
    let same = |pair: (&Word, &Word)| pair.0.text == pair.1.text;
    let known = words.iter().skip(start);
    let count = known.zip(&more).take_while(|(a, b)| same((a, b))).count();
    let is_further = |word: &Word| word.text == format!("{text}_{}", more.len());
    if count != more.len() || words.get(start + count).is_some_and(is_further) {
        let problem =
            format!("{} vectors, but the other text encoder's are another number", more.len());
        return Err(tensor_error(file, tensor, problem));
    }
    for (word, more) in words.iter_mut().skip(start).zip(more) {
        word.rows.extend(more.rows);
    }
    Ok(())
}

/// An error that names the form of a change which is none of those that are read.
pub fn foreign_form(file: &TensorFile, tensor: &str, kind: &str) -> Error {
    tensor_error(
        file,
        tensor,
        format!(
            "the change is {kind}, which is not supported; LoRA, LoCon, LoHa, LoKr, DoRA, IA3 and \
                full differences are"
        ),
    )
}

/// An error for a tensor of a network that no supported model has.
pub fn other_encoder(file: &TensorFile, tensor: &str) -> Error {
    let problem = "it belongs to a text encoder that neither Stable Diffusion 1.x, 2.x nor XL has";
    tensor_error(file, tensor, problem.into())
}

/// An error for a file's tensor that no dialect has.
pub fn unknown_tensor(file: &TensorFile, tensor: &str, dialect: &str) -> Error {
    tensor_error(file, tensor, format!("it has no meaning in {dialect}"))
}
