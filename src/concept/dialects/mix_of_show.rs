//! Mix-of-Show's own files: `params.{new_concept_embedding,text_encoder,unet}`, as a pickle or with
//! dotted names as safetensors.
//!
//! Layers are named as in the networks, each with `lora_down.weight` and `lora_up.weight`; alpha is
//! not stored and not divided by the rank.

use crate::checkpoint::TensorFile;
use crate::concept::parts::Part;
use crate::concept::tensors::numbers;
use crate::concept::{Concept, Lora, Network, Result, Update, Word};
use crate::graph::Array;

use super::gather::{Gathered, unknown_tensor};
use super::names;
use super::{Read, Tensors};
use crate::watch::Parts;

const WORDS: &str = "new_concept_embedding.";
const DOWN: &str = ".lora_down.weight";
const UP: &str = ".lora_up.weight";

/// A tensor's name without the wrapping.
fn bare(name: &str) -> &str {
    name.strip_prefix("params.").unwrap_or(name)
}

pub fn is_it(file: &TensorFile) -> bool {
    let is_word = |name: &str| bare(name).starts_with(WORDS);
    let is_update = |name: &str| name.strip_suffix(DOWN).is_some_and(|layer| layer.contains('.'));
    file.names().any(|name| is_word(name) || is_update(name))
}

pub fn read(file: &TensorFile, progress: &mut Parts) -> Result<Read> {
    let (mut updates, mut words) = (Gathered::default(), Vec::new());
    for name in file.names() {
        if let Some(text) = bare(name).strip_prefix(WORDS) {
            let rows =
                numbers(file, name)?.ok_or_else(|| unknown_tensor(file, name, "a concept"))?;
            let rows = match rows.shape[..] {
                [width] => Array { shape: [1, width].into(), ..rows },
                [_, _] => rows,
                _ => {
                    return Err(unknown_tensor(
                        file,
                        name,
                        "a concept, whose words are [layers, width]",
                    ));
                }
            };
            words.push(Word::new(text, rows));
            continue;
        }
        let (network, rest) = match bare(name) {
            rest if rest.starts_with("text_encoder.") => {
                (Network::TextEncoder, &rest["text_encoder.".len()..])
            }
            rest if rest.starts_with("text_encoder_2.") => {
                (Network::TextEncoder2, &rest["text_encoder_2.".len()..])
            }
            rest if rest.starts_with("unet.") => (Network::UNet, &rest["unet.".len()..]),
            rest if names::is_text(rest) => (Network::TextEncoder, rest),
            rest => (Network::UNet, rest),
        };
        let layer = |layer: &str| {
            if network.is_text_encoder() { names::text_layer(layer) } else { layer.to_string() }
        };
        if let Some(of) = rest.strip_suffix(DOWN) {
            updates.add(file, name, network, layer(of), Part::Down)?;
        } else if let Some(of) = rest.strip_suffix(UP) {
            updates.add(file, name, network, layer(of), Part::Up)?;
        } else {
            return Err(unknown_tensor(file, name, "Mix-of-Show's files"));
        }
    }
    let updates = updates.read(file, progress)?;
    let concept = Concept { words, updates, ..Concept::default() };
    let mut notes = Vec::new();
    if !concept.updates.is_empty() {
        notes.push(
            "it does not say how strong its LoRA is; 1, the method's own alpha, is taken"
                .to_string(),
        );
    }
    Ok(Read { concept, notes })
}

/// Words with all their rows, and updates whose scale is in the matrices, since it is not stored.
/// Those that are no LoRA are left out.
pub fn tensors(concept: &Concept) -> Tensors {
    let mut tensors = Vec::new();
    for word in &concept.words {
        tensors.push((
            format!("params.{WORDS}{}", word.text),
            word.rows(Network::TextEncoder).clone(),
        ));
    }
    for (network, set) in concept.updates.iter() {
        let network = network.folder();
        for (layer, update) in &set.layers {
            let Update::Lora(Lora { down, up }) = update.scaled(set.scale) else { continue };
            tensors.push((format!("params.{network}.{layer}{DOWN}"), down));
            tensors.push((format!("params.{network}.{layer}{UP}"), up));
        }
    }
    tensors
}
