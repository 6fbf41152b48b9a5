//! The concept file: one safetensors.
//!
//! Tensors: `words.<text>` `[layers or 1, width]`, and for each updated layer of `text_encoder` and
//! `unet` `<network>.<layer>.lora_down.weight` `[rank, in]` (of convolutions `[rank, in, k, k]`)
//! and `<network>.<layer>.lora_up.weight` `[out, rank]`, or the tensors of another kind of change,
//! named as LyCORIS does. Metadata: `mos_concept` (the version of
//! this layout), `mos_name`, `mos_words` (a JSON list of `text` and `initializer`, in order),
//! `mos_scale_text` and `mos_scale_unet` (the whole factor of the updates), `mos_base` (hash of the
//! base model); all other keys are [`Concept::metadata`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::checkpoint::{self, TensorFile, TensorView};
use crate::graph::Array;
use crate::watch::{Parts, unwatched_parts};

use super::parts::{self, Names, Part};
use super::tensors::{numbers, tensor_error, view};
use super::{Concept, Error, Lora, Network, Result, Update, UpdateSet, Word};

const VERSION: &str = "1";
const LAYOUT_KEY: &str = "mos_concept";
const NAME_KEY: &str = "mos_name";
const WORDS_KEY: &str = "mos_words";
const BASE_KEY: &str = "mos_base";
const WORDS: &str = "words.";
const DOWN: &str = ".lora_down.weight";
const UP: &str = ".lora_up.weight";

/// What the names of a network's layers begin with.
fn prefix(network: Network) -> String {
    format!("{}.", network.folder())
}

/// The metadata key of a network's scale.
fn scale_key(network: Network) -> &'static str {
    match network {
        Network::TextEncoder => "mos_scale_text",
        Network::TextEncoder2 => "mos_scale_text_2",
        Network::UNet => "mos_scale_unet",
    }
}

/// What the names of words' rows of a text encoder's table begin with.
fn words_prefix(encoder: Network) -> &'static str {
    match encoder {
        Network::TextEncoder2 => "words_2.",
        _ => WORDS,
    }
}

/// A word as the metadata lists it.
#[derive(Serialize, Deserialize)]
struct Listed {
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initializer: Option<String>,
}

type Tensors<'a> = Vec<(String, TensorView<'a>)>;

impl Concept {
    /// Writes the file, whole or not at all. The same concept always gives the same bytes.
    ///
    /// # Errors
    /// Arrays that contradict their own shapes; whatever the system says.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.write_watched(path, &mut unwatched_parts)
    }

    pub(super) fn write_watched(&self, path: &Path, progress: &mut Parts) -> Result<()> {
        let (tensors, metadata) = self.parts(path)?;
        Ok(checkpoint::write_watched(path, &tensors, &metadata, progress)?)
    }

    /// The bytes of the file that [`Concept::write`] writes.
    ///
    /// # Errors
    /// Arrays that contradict their own shapes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let path = Path::new(&self.name);
        let (tensors, metadata) = self.parts(path)?;
        Ok(checkpoint::to_bytes(path, &tensors, &metadata)?)
    }

    /// Reads a file that [`Concept::from_bytes`] reads.
    ///
    /// # Errors
    /// See there; a file that cannot be read.
    pub fn read(path: &Path) -> Result<Concept> {
        read(&TensorFile::open(path)?, &mut unwatched_parts)
    }

    /// Reads what [`Concept::to_bytes`] wrote. `name` stands for the path in errors.
    ///
    /// # Errors
    /// Bytes that are no concept file, with the tensor or key that is wrong.
    pub fn from_bytes(name: &Path, bytes: Vec<u8>) -> Result<Concept> {
        read(&TensorFile::from_bytes(name, bytes)?, &mut unwatched_parts)
    }

    fn parts(&self, path: &Path) -> Result<(Tensors<'_>, BTreeMap<String, String>)> {
        let mut tensors = Vec::new();
        let unholdable = |layer: &str, what: String| Error::File {
            path: path.to_path_buf(),
            problem: format!("`{layer}` is {what}"),
        };
        for word in &self.words {
            for (encoder, rows) in &word.rows {
                let name = format!("{}{}", words_prefix(*encoder), word.text);
                tensors.push(view(path, name, rows)?);
            }
        }
        for (network, set) in self.updates.iter() {
            let prefix = prefix(network);
            for (layer, update) in &set.layers {
                if let Update::Lora(Lora { down, up }) = update {
                    tensors.push(view(path, format!("{prefix}{layer}{DOWN}"), down)?);
                    tensors.push(view(path, format!("{prefix}{layer}{UP}"), up)?);
                    continue;
                }
                let parts = parts::tensors(update).map_err(|what| unholdable(layer, what))?;
                for (part, array) in parts {
                    let name = format!("{prefix}{layer}.{}", part.ending());
                    tensors.push(owned(path, name, &array)?);
                }
            }
            for (layer, update) in &set.biases {
                let norm = set.layers.get(layer).is_some_and(|w| w.weight_shape().len() == 1);
                let Some((part, array)) = parts::bias_tensor(update, norm) else {
                    return Err(unholdable(layer, format!("a {} of a bias", update.kind())));
                };
                let name = format!("{prefix}{layer}.{}", part.ending());
                tensors.push(owned(path, name, &array)?);
            }
        }
        let listed =
            |word: &Word| Listed { text: word.text.clone(), initializer: word.initializer.clone() };
        let words: Vec<Listed> = self.words.iter().map(listed).collect();
        let words = serde_json::to_string(&words).unwrap_or_default();
        let mut metadata = self.metadata.clone();
        metadata.extend([
            (LAYOUT_KEY.to_string(), VERSION.to_string()),
            (NAME_KEY.to_string(), self.name.clone()),
            (WORDS_KEY.to_string(), words),
        ]);
        let told = |network: &Network| {
            *network != Network::TextEncoder2 || !self.updates.of(*network).is_empty()
        };
        metadata.extend(Network::ALL.into_iter().filter(told).map(|network| {
            (scale_key(network).to_string(), self.updates.of(network).scale.to_string())
        }));
        metadata.extend(self.base.map(|base| (BASE_KEY.to_string(), base.to_string())));
        Ok((tensors, metadata))
    }
}

/// As [`view`], of an array that does not last.
fn owned(path: &Path, name: String, array: &Array) -> Result<(String, TensorView<'static>)> {
    let (name, view) = view(path, name, array)?;
    let owned = TensorView::new(view.dtype(), view.shape().to_vec(), view.bytes().to_vec());
    let problem = || "its shape does not suit its values".to_string();
    match owned {
        Some(view) => Ok((name, view)),
        None => Err(Error::Tensor { path: path.to_path_buf(), tensor: name, problem: problem() }),
    }
}

/// The file is one of this layout.
pub(super) fn is_ours(file: &TensorFile) -> bool {
    file.metadata().contains_key(LAYOUT_KEY)
}

pub(super) fn read(file: &TensorFile, progress: &mut Parts) -> Result<Concept> {
    let fail = |problem: String| Error::File { path: file.path().to_path_buf(), problem };
    let mut metadata = file.metadata().clone();
    match metadata.remove(LAYOUT_KEY).as_deref() {
        Some(VERSION) => {}
        Some(other) => {
            return Err(fail(format!(
                "a concept file of version {other}, this program reads version {VERSION}"
            )));
        }
        None => {
            return Err(fail(format!("not a concept file (no `{LAYOUT_KEY}` in its metadata)")));
        }
    }
    let listed = metadata.remove(WORDS_KEY).unwrap_or_else(|| "[]".to_string());
    let listed: Vec<Listed> = serde_json::from_str(&listed)
        .map_err(|e| fail(format!("metadata `{WORDS_KEY}` cannot be read: {e}")))?;
    let mut concept =
        Concept { name: metadata.remove(NAME_KEY).unwrap_or_default(), ..Concept::default() };
    if let Some(base) = metadata.remove(BASE_KEY) {
        concept.base = Some(base.parse().map_err(|e| fail(format!("metadata `{BASE_KEY}`: {e}")))?);
    }
    for word in listed {
        if concept.words.iter().any(|other| other.text == word.text) {
            return Err(fail(format!("metadata `{WORDS_KEY}` lists {} twice", word.text)));
        }
        let mut rows = BTreeMap::new();
        for encoder in [Network::TextEncoder, Network::TextEncoder2] {
            let name = format!("{}{}", words_prefix(encoder), word.text);
            rows.extend(matrix(file, &name)?.map(|found| (encoder, found)));
        }
        if rows.is_empty() {
            let name = format!("{WORDS}{}", word.text);
            return Err(fail(format!("tensor `{name}` of the word {} is missing", word.text)));
        }
        concept.words.push(Word { text: word.text, initializer: word.initializer, rows });
    }
    for network in Network::ALL {
        let (set, key) = (concept.updates.of_mut(network), scale_key(network));
        if let Some(scale) = metadata.remove(key) {
            let finite = scale.parse().ok().filter(|scale: &f32| scale.is_finite());
            set.scale = finite
                .ok_or_else(|| fail(format!("metadata `{key}` is `{scale}`, not a number")))?;
        }
        read_set(file, &prefix(network), set, progress)?;
    }
    concept.metadata = metadata;
    let known = |name: &str| {
        let of = |network: Network| {
            let found = name.strip_prefix(&prefix(network)).and_then(Part::at_end);
            let set = concept.updates.of(network);
            found.is_some_and(|(layer, part)| match part {
                Part::Down | Part::Up => set.layers.get(layer).is_some_and(has_lora),
                Part::Alpha | Part::Scalar => false,
                _ => set.layers.contains_key(layer) || set.biases.contains_key(layer),
            })
        };
        let word = |encoder: Network| {
            let is_it = |text| concept.words.iter().any(|word| word.text == text);
            name.strip_prefix(words_prefix(encoder)).is_some_and(is_it)
        };
        Network::ALL.into_iter().any(|n| of(n) || n.is_text_encoder() && word(n))
    };
    match file.names().find(|name| !known(name)) {
        Some(name) => Err(tensor_error(file, name, "it has no meaning in a concept file".into())),
        None => Ok(concept),
    }
}

fn has_lora(update: &Update) -> bool {
    match update {
        Update::Dora(dora) => has_lora(&dora.change),
        _ => update.lora().is_some(),
    }
}

fn read_set(
    file: &TensorFile,
    prefix: &str,
    set: &mut UpdateSet,
    progress: &mut Parts,
) -> Result<()> {
    read_others(file, prefix, set)?;
    for (done, name) in file.names().enumerate() {
        let Some(layer) = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(DOWN)) else {
            continue;
        };
        progress(done, file.len())?;
        let other = format!("{prefix}{layer}{UP}");
        let (Some(down), Some(up)) = (narrowing(file, name)?, matrix(file, &other)?) else {
            return Err(tensor_error(
                file,
                name,
                format!("`{other}`, which goes with it, is missing"),
            ));
        };
        let lora = Lora { down, up };
        check_ranks(file, name, &other, &lora)?;
        set.layers.entry(layer.to_string()).or_insert(lora.into());
    }
    Ok(())
}

/// Updates that are no plain LoRA.
fn read_others(file: &TensorFile, prefix: &str, set: &mut UpdateSet) -> Result<()> {
    let mut layers: BTreeMap<&str, (Names, bool)> = BTreeMap::new();
    for name in file.names() {
        let Some((layer, part)) = name.strip_prefix(prefix).and_then(Part::at_end) else {
            continue;
        };
        let (names, other) = layers.entry(layer).or_default();
        // The scale is the set's.
        if !matches!(part, Part::Alpha | Part::Scalar) {
            names.add(part, name);
        }
        *other |= !matches!(part, Part::Down | Part::Up | Part::Alpha | Part::Scalar);
    }
    for (layer, (names, _)) in layers.into_iter().filter(|(_, (_, other))| *other) {
        let found = names.assemble(file)?;
        set.layers.extend(found.weight.map(|weight| (layer.to_string(), weight)));
        set.biases.extend(found.bias.map(|bias| (layer.to_string(), bias)));
    }
    Ok(())
}

/// The two halves of an update have the same rank.
fn check_ranks(file: &TensorFile, down: &str, up: &str, lora: &Lora) -> Result<()> {
    let (rank, other) = (lora.rank(), lora.up.shape.channels());
    if rank == other {
        return Ok(());
    }
    let problem = format!(
        "rank {rank} (shape {}), but `{up}` has rank {other} (shape {})",
        lora.down.shape, lora.up.shape
    );
    Err(tensor_error(file, down, problem))
}

/// The narrowing half of an update: a matrix, or the weight of a convolution.
fn narrowing(file: &TensorFile, name: &str) -> Result<Option<Array>> {
    match file.tensor(name) {
        Some(view) if view.shape().len() == 4 => numbers(file, name),
        _ => matrix(file, name),
    }
}

/// A tensor of two dimensions, all of it finite; `None` where there is none of that name.
fn matrix(file: &TensorFile, name: &str) -> Result<Option<Array>> {
    match file.tensor(name) {
        Some(view) if view.shape().len() != 2 => Err(tensor_error(
            file,
            name,
            format!("shape {:?} where [rows, columns] is expected", view.shape()),
        )),
        _ => numbers(file, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array<const N: usize>(shape: [usize; N], from: f32) -> Array {
        Array::f32(shape, (0..shape.iter().product()).map(|i| from + i as f32 * 0.25).collect())
    }

    fn concept() -> Concept {
        let update =
            |from| Update::Lora(Lora { down: array([2, 6], from), up: array([5, 2], -from) });
        let text = UpdateSet {
            scale: 0.7,
            layers: [("text_model.encoder.layers.0.self_attn.q_proj".to_string(), update(1.0))]
                .into(),
            ..UpdateSet::default()
        };
        let unet = UpdateSet::new([
            ("mid_block.attentions.0.proj_in".to_string(), update(2.0)),
            ("b".into(), update(3.0)),
        ]);
        let first = Word::new("<zorp2>", array([3, 6], 0.5));
        Concept {
            name: "zorp".into(),
            words: vec![
                Word { initializer: Some("cat".into()), ..first },
                Word::new("<zorp1>", array([1, 6], 1.5)),
            ],
            updates: [(Network::TextEncoder, text), (Network::UNet, unet)].into(),
            base: Some(super::super::ModelHash([7; 32])),
            metadata: [("seed".to_string(), "3".to_string())].into(),
        }
    }

    #[test]
    fn what_is_written_is_read_back_to_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zorp.safetensors");
        concept().write(&path).unwrap();
        let read = Concept::read(&path).unwrap();
        assert_eq!(read, concept());
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(read.to_bytes().unwrap(), bytes);
        assert_eq!(Concept::from_bytes(&path, bytes).unwrap(), concept());
        let empty = Concept::default();
        assert_eq!(Concept::from_bytes(&path, empty.to_bytes().unwrap()).unwrap(), empty);
    }

    /// The error of a concept file with other tensors and metadata.
    fn error(tensors: &[(&str, Array)], metadata: &[(&str, &str)]) -> String {
        let path = Path::new("a.safetensors");
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, array)| view(path, name.to_string(), array).unwrap())
            .collect();
        let metadata =
            metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let bytes = checkpoint::to_bytes(path, &tensors, &metadata).unwrap();
        let error = Concept::from_bytes(path, bytes).unwrap_err().to_string();
        assert!(error.starts_with("a.safetensors: "), "{error}");
        error
    }

    #[test]
    fn lies_are_found_and_named() {
        let ours = (LAYOUT_KEY, VERSION);
        assert!(error(&[], &[]).contains(LAYOUT_KEY));
        assert!(error(&[], &[(LAYOUT_KEY, "9")]).contains("version 9"));
        assert!(error(&[], &[ours, (WORDS_KEY, "[1]")]).contains(WORDS_KEY));
        assert!(error(&[], &[ours, (WORDS_KEY, r#"[{"text": "<a>"}]"#)]).contains("`words.<a>`"));
        assert!(error(&[], &[ours, (BASE_KEY, "12")]).contains("`12`"));
        let twice = [ours, (WORDS_KEY, r#"[{"text": "<a>"}, {"text": "<a>"}]"#)];
        assert!(error(&[("words.<a>", array([2, 2], 0.0))], &twice).contains("twice"));
        for scale in ["much", "inf"] {
            assert!(error(&[], &[ours, ("mos_scale_unet", scale)]).contains(scale));
        }
        assert!(
            error(&[("words.<a>", array([2, 2], 0.0))], &[ours])
                .contains("`words.<a>`: it has no meaning")
        );
        assert!(
            error(&[("unet.a.lora_up.weight", array([2, 2], 0.0))], &[ours]).contains("no meaning")
        );
        let down = ("unet.a.lora_down.weight", array([2, 3], 0.0));
        assert!(
            error(std::slice::from_ref(&down), &[ours])
                .contains("`unet.a.lora_up.weight`, which goes with it, is missing")
        );
        let found = error(&[down.clone(), ("unet.a.lora_up.weight", array([4, 3], 0.0))], &[ours]);
        assert!(
            found.contains("rank 2 (shape [2, 3]), but `unet.a.lora_up.weight` has rank 3"),
            "{found}"
        );
        let found =
            error(&[down.clone(), ("unet.a.lora_up.weight", array([4, 2, 1], 0.0))], &[ours]);
        assert!(found.contains("shape [4, 2, 1]"), "{found}");
        let bad = Array::f32([2, 2], vec![0.0, f32::NAN, 0.0, 0.0]);
        assert!(error(&[down, ("unet.a.lora_up.weight", bad)], &[ours]).contains("no numbers"));
    }
}
