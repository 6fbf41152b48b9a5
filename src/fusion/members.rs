//! Who is fused: concepts with their scales, in an order that does not depend on how they were
//! given.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::checkpoint::DType;
use crate::concept::{Concept, Lora, ModelKind, Network, Update, UpdateSet, Updates, Word};
use crate::graph::Array;

use super::base::Base;
use super::settings::Settings;
use super::{Error, Result};

/// A concept as it is asked for.
#[derive(Clone, Debug)]
pub struct ConceptToFuse {
    /// The concept, its words and updates.
    pub concept: Concept,
    /// Where it was read from, for the note of what went in.
    pub path: PathBuf,
    /// Factors on the concept's own scales.
    pub unet: f32,
    /// Factor of its updates of the text encoder.
    pub text: f32,
    /// What stands for the concept in prompts; none: its words. A LoRA without words needs one.
    pub prompt: Option<String>,
}

impl ConceptToFuse {
    /// As strong as it was tuned, from the file at `path`.
    pub fn new(concept: Concept, path: impl Into<PathBuf>) -> ConceptToFuse {
        ConceptToFuse { concept, path: path.into(), unet: 1.0, text: 1.0, prompt: None }
    }
}

/// A concept that is fused.
#[derive(Clone, Debug)]
pub(super) struct FusedConcept {
    pub name: String,
    /// Hash of everything that counts: words, updates with their scales, prompt.
    pub key: String,
    pub words: Vec<Word>,
    /// What stands for it in prompts.
    pub phrase: String,
    /// Low-rank updates of linear layers, scales applied to `up`.
    pub updates: Updates,
    /// How often it was given.
    pub weight: f64,
    pub path: PathBuf,
    pub scales: [f32; 2],
    /// Updates of convolutions with a window: they are no linear layers.
    pub left_out: usize,
    pub concept: Concept,
}

/// Checks concepts against the model and each other. The order is that of their phrases, so that
/// the same concepts give the same model however they were listed. With the setting `rename`, a word that
/// another concept has already gets a number.
pub(super) fn members(
    entries: Vec<ConceptToFuse>,
    base: &Base,
    settings: &Settings,
) -> Result<Vec<FusedConcept>> {
    let rename = settings.rename;
    let mut members: Vec<FusedConcept> = Vec::with_capacity(entries.len());
    let mut found =
        entries.into_iter().map(|entry| member(entry, base)).collect::<Result<Vec<_>>>()?;
    found.sort_by(|a, b| (&a.phrase, &a.key).cmp(&(&b.phrase, &b.key)));
    for mut next in found {
        if let Some(same) = members.iter_mut().find(|member| member.key == next.key) {
            same.weight += 1.0;
            continue;
        }
        fits_precision(&next, base)?;
        clash(&members, &mut next, base, rename)?;
        members.push(next);
    }
    Ok(members)
}

/// Whether what a concept alone does to weights can be written as the model's are stored: before all
/// work, and with its name.
fn fits_precision(member: &FusedConcept, base: &Base) -> Result<()> {
    let most = f32::from(half::f16::MAX);
    for (network, set) in member.updates.iter() {
        let component = match network {
            Network::UNet => &base.checkpoint.unet,
            _ => &base.checkpoint.text_encoder,
        };
        for (layer, update) in &set.layers {
            let stored = component.dtype(&format!("{layer}.weight"));
            let Some(lora) = update.lora().filter(|_| stored == Some(DType::F16)) else { continue };
            let largest = largest_change(lora, most);
            if largest > most {
                let problem = format!(
                    "its change of `{layer}` has numbers up to {largest:.3e}, beyond what the \
                        model's weights can hold (f16, {most:.0}); a smaller scale may help"
                );
                return Err(Error::concept(&member.name, problem));
            }
        }
    }
    Ok(())
}

/// The largest number of up times down, or what it cannot exceed where that is below `most`.
fn largest_change(lora: &Lora, most: f32) -> f32 {
    let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let (up, down) = (lora.up.values(), lora.down.values());
    let (rank, into) = (lora.rank(), lora.down.shape.channels().max(1));
    let bound = largest(up) * largest(down) * rank as f32;
    if bound <= most {
        return bound;
    }
    let mut found = 0.0f32;
    for row in up.chunks_exact(rank.max(1)) {
        let mut sums = vec![0.0f32; into];
        for (factor, line) in row.iter().zip(down.chunks_exact(into)) {
            sums.iter_mut().zip(line).for_each(|(sum, v)| *sum += factor * v);
        }
        // What is no number is too large as well.
        found = sums
            .iter()
            .fold(found, |most, v| if v.abs() > most || v.is_nan() { v.abs() } else { most });
        if !found.is_finite() {
            return f32::INFINITY;
        }
    }
    found
}

fn member(entry: ConceptToFuse, base: &Base) -> Result<FusedConcept> {
    let ConceptToFuse { concept, path, unet, text, prompt } = entry;
    let refuse = |problem: String| Error::Concept { concept: concept.name.clone(), problem };
    let kind =
        ModelKind { encoders: base.encoders().len(), width: base.unet().cross_attention_dim };
    kind.check(&concept)?;
    if let Some(hash) = concept.base.filter(|hash| *hash != base.hash) {
        let model = base.checkpoint.path.display();
        return Err(refuse(format!(
            "it was tuned on another model (hash {hash}) than {model} (hash {})",
            base.hash
        )));
    }
    for (name, scale) in [("unet", unet), ("text", text)] {
        if !scale.is_finite() {
            return Err(refuse(format!("its scale {name} is {scale}, not a number")));
        }
    }
    let layers = base.model.attentions.len();
    let encoders = base.encoders().iter();
    for (word, encoder) in concept.words.iter().flat_map(|w| encoders.clone().map(move |e| (w, e)))
    {
        let rows = word.rows(encoder.network);
        let (found, expected) = (rows.shape.channels(), encoder.part.config.hidden_size);
        if found != expected {
            return Err(refuse(format!(
                "its word {} has embeddings of width {found}, the {} is {expected} wide",
                word.text, encoder.network
            )));
        }
        if word.layers() != layers && word.layers() != 1 {
            let found = word.layers();
            return Err(refuse(format!(
                "its word {} has {found} embeddings, the model has {layers} cross-attentions (one \
                    for each, or one for all)",
                word.text
            )));
        }
        if rows.values().iter().any(|v| !v.is_finite()) {
            return Err(refuse(format!("the embeddings of its word {} are not finite", word.text)));
        }
    }
    let words: Vec<&str> = concept.words.iter().map(|word| word.text.as_str()).collect();
    let phrase = match prompt {
        Some(prompt) => prompt,
        None if !words.is_empty() => words.join(" "),
        None => {
            return Err(refuse(
                "it has no words of its own: give a prompt that calls it up".into(),
            ));
        }
    };
    if phrase.trim().is_empty() {
        return Err(refuse("its prompt is empty".into()));
    }
    for word in &words {
        if !phrase.to_lowercase().contains(&word.to_lowercase()) {
            return Err(refuse(format!("its prompt \"{phrase}\" lacks its word {word}")));
        }
    }
    let mut left_out = 0;
    let mut updates = Vec::new();
    for (network, set) in concept.updates.iter() {
        let factor = if network.is_text_encoder() { text } else { unet };
        let set = scaled(set, factor, &mut left_out);
        updates.push((network, set.map_err(|e| refuse(format!("{network}, {e}")))?));
    }
    let updates: Updates = updates.into_iter().collect();
    Ok(FusedConcept {
        key: key(&concept.words, &phrase, &updates),
        name: concept.name.clone(),
        words: concept.words.clone(),
        phrase,
        updates,
        weight: 1.0,
        path,
        scales: [unet, text],
        left_out,
        concept,
    })
}

/// The highest rank at which other kinds of changes are fused as the LoRAs that they come to.
const HIGHEST_RANK: usize = 128;
const REMEDY: &str = "cannot be fused as it is: `mos convert FILE OUT --rank N` makes a LoRA of it";

/// Of linear layers and 1x1 convolutions; others are counted.
fn scaled(set: &UpdateSet, factor: f32, left_out: &mut usize) -> Result<UpdateSet, String> {
    let scale = set.scale * factor;
    if !scale.is_finite() {
        return Err(format!("its scale {} times {factor} is not finite", set.scale));
    }
    let mut updates = UpdateSet::default();
    if let Some(layer) = set.biases.keys().next() {
        return Err(format!("layer `{layer}`: it changes a bias, which {REMEDY}"));
    }
    for (layer, update) in &set.layers {
        let lora = match update {
            Update::Lora(lora) => lora.clone(),
            other => other.as_lora(&other.weight_shape(), HIGHEST_RANK).ok_or_else(|| {
                format!("layer `{layer}`: its change is a {}, which {REMEDY}", other.kind())
            })?,
        };
        let (down, up) = (&lora.down.shape, &lora.up.shape);
        let into = match down[..] {
            [_, into] | [_, into, 1, 1] => into,
            [_, _, _, _] => {
                *left_out += 1;
                continue;
            }
            _ => 0,
        };
        let rank = lora.rank();
        if up.len() != 2 || up.channels() != rank || rank * into == 0 {
            return Err(format!(
                "layer `{layer}`: an update of {down} and {up}; expected [rank, in] and [out, rank]"
            ));
        }
        if lora.down.values().iter().chain(lora.up.values()).any(|v| !v.is_finite()) {
            return Err(format!("layer `{layer}`: the update is not finite"));
        }
        let down = Array::f32([rank, into], lora.down.values().to_vec());
        let up = Array::f32(up.clone(), lora.up.values().iter().map(|v| v * scale).collect());
        updates.layers.insert(layer.clone(), Lora { down, up }.into());
    }
    Ok(updates)
}

fn key(words: &[Word], phrase: &str, updates: &Updates) -> String {
    let mut sha = Sha256::new();
    // Lengths go in too, so that no two different concepts give the same stream.
    let mut put = |bytes: &[u8]| {
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    };
    put(phrase.as_bytes());
    for word in words {
        put(word.text.as_bytes());
        word.rows.values().for_each(|rows| put(bytemuck::cast_slice(rows.values())));
    }
    for network in Network::ALL {
        let set = updates.of(network);
        match network {
            Network::TextEncoder => put(b"text"),
            // Most models have none, and their keys stay as they are.
            Network::TextEncoder2 if set.is_empty() => continue,
            _ => put(network.folder().as_bytes()),
        }
        for (layer, update) in &set.layers {
            put(layer.as_bytes());
            update.arrays().iter().for_each(|array| put(bytemuck::cast_slice(array.values())));
        }
    }
    hex(&sha.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a file's bytes.
pub(super) fn hash_of(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(Error::io(path, "read"))?;
    let mut sha = Sha256::new();
    std::io::copy(&mut file, &mut sha).map_err(Error::io(path, "read"))?;
    Ok(hex(&sha.finalize()))
}

/// Refuses (or renames) words that the model's vocabulary or another concept has.
fn clash(
    members: &[FusedConcept],
    next: &mut FusedConcept,
    base: &Base,
    rename: bool,
) -> Result<()> {
    let there = base.checkpoint.concepts.as_ref().and_then(|words| words.as_object());
    let fused = |word: &str| {
        there.is_some_and(|words| words.keys().any(|known| known.eq_ignore_ascii_case(word)))
    };
    let taken = |word: &str| {
        let lower = word.to_lowercase();
        let other = members.iter().find(|m| m.words.iter().any(|w| w.text.to_lowercase() == lower));
        match other {
            Some(other) => Some(format!("concept `{}`", other.name)),
            None if fused(word) => Some("the model's, which is a fused one".to_string()),
            None => base.tokenizer().token_id(word).map(|_| "the model's vocabulary".to_string()),
        }
    };
    let mut words = next.words.clone();
    for i in 0..words.len() {
        let text = words[i].text.clone();
        if words[..i].iter().any(|word| word.text.eq_ignore_ascii_case(&text)) {
            return Err(Error::concept(&next.name, format!("it has the word {text} twice")));
        }
        let Some(by) = taken(&text) else { continue };
        if !rename {
            return Err(Error::concept(
                &next.name,
                format!("its word {text} is a word of {by} too; rename one of them"),
            ));
        }
        let numbered = |n: usize| match text.strip_suffix('>') {
            Some(stem) => format!("{stem}-{n}>"),
            None => format!("{text}-{n}"),
        };
        let fresh = (2..)
            .map(numbered)
            .find(|name| taken(name).is_none() && !words.iter().any(|w| w.text == *name));
        let fresh = fresh.unwrap_or_default();
        next.phrase = next.phrase.replace(&text, &fresh);
        words[i].text = fresh;
    }
    if next.words != words {
        next.key = key(&words, &next.phrase, &next.updates);
        next.concept.words.clone_from(&words);
        next.words = words;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::concept::{LoHa, Piece};

    #[test]
    fn changes_are_measured_as_they_would_be_written() {
        let lora = |up: [f32; 2], down: [f32; 2]| Lora {
            up: Array::f32([2, 1], up.to_vec()),
            down: Array::f32([1, 2], down.to_vec()),
        };
        assert!(largest_change(&lora([1.0, -2.0], [3.0, 0.5]), 1e4) <= 1e4);
        assert_eq!(largest_change(&lora([1.0, -2e3], [3e3, 0.5]), 1e4), 6e6);
        assert_eq!(largest_change(&lora([1e30, 0.0], [1e30, 1.0]), 1e4), f32::INFINITY);
    }

    fn array(shape: [usize; 2], from: usize) -> Array {
        let value = |i| ((i * 37 + from * 11) % 19) as f32 / 9.0 - 1.0;
        Array::f32(shape, (0..shape[0] * shape[1]).map(value).collect())
    }

    #[test]
    fn other_kinds_are_fused_as_the_loras_that_they_come_to() {
        let half = |from| Lora { down: array([2, 6], from), up: array([5, 2], from + 1) };
        let loha = Update::LoHa(LoHa([half(1), half(5)]));
        let set = UpdateSet::scaled(0.5, [("a".to_string(), loha.clone())]);
        let mut left_out = 0;
        let found = scaled(&set, 2.0, &mut left_out).unwrap();
        assert_eq!((left_out, found.scale), (0, 1.0));
        let values = |update: &Update| {
            let mut values = vec![0.0; 30];
            update.add_to(1.0, &Piece { shape: &[5, 6], range: 0..30 }, &[], &mut values);
            values
        };
        let (a, b) = (values(&found.layers["a"]), values(&loha));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
        assert_eq!(found.layers["a"].lora().unwrap().rank(), 4);

        let error = |set: &UpdateSet| scaled(set, 1.0, &mut 0).unwrap_err();
        let whole = UpdateSet::new([("a".to_string(), Update::Full(array([5, 6], 1)))]);
        let said = error(&whole);
        assert!(said.contains("`a`: its change is a full difference") && said.contains("--rank"));
        let bias = Update::Full(Array::f32([5], vec![1.0; 5]));
        let biased = UpdateSet { biases: [("b".to_string(), bias)].into(), ..set };
        assert!(error(&biased).contains("`b`: it changes a bias"));
    }
}
