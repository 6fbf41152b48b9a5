//! What one file holds, by its names, shapes and metadata.
use super::inversion::{self, Embedding};
use super::lora::{self, LoraReport};
use super::what::{CONTROL_MODEL, DIFFERENCE, What, bare, classify, other_change};
use super::whole::TRAINERS;
use super::{DType, TensorFile};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// In the metadata of the state of a training run: what it belongs to.
pub const STATE_KEY: &str = "mos_training";

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorReport {
    /// Canonical name where the tensor belongs to a known network, otherwise the name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape, outermost first.
    pub shape: Vec<usize>,
    /// Bytes.
    pub bytes: u64,
}

/// One network, or all of a file that is none.
#[derive(Debug, Clone, Serialize)]
pub struct ComponentReport {
    /// `unet`, `vae`, `text_encoder`, `vision`, or `tensors`.
    pub name: String,
    /// The file or folder.
    pub path: PathBuf,
    /// Its configuration, read or inferred; null where there is none.
    pub config: Value,
    /// Number of weights.
    pub parameters: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Number of tensors of each type.
    pub dtypes: BTreeMap<DType, usize>,
    /// Names in the file that have no meaning for the network.
    pub ignored: Vec<String>,
    /// All tensors.
    pub tensors: Vec<TensorReport>,
}

/// Words and embeddings of a textual inversion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InversionReport {
    /// The word, as it stands in a prompt.
    pub word: String,
    /// Vectors per word.
    pub vectors: usize,
    /// Width of a vector: that of the text encoder it belongs to.
    pub width: usize,
}

/// What a file or folder is and holds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The file or folder.
    pub path: PathBuf,
    /// What it is.
    pub what: What,
    /// The options that take it, or why none does.
    pub used: String,
    /// The networks, or the one list of tensors.
    pub components: Vec<ComponentReport>,
    /// For a LoRA: dialect, ranks, alphas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraReport>,
    /// For a textual inversion: its words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<InversionReport>,
    /// For a model: the scheduler's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Value>,
    /// For a folder: `model_index.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_index: Option<Value>,
    /// For a small model: the words that it knows, by kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub known_words: Vec<(String, Vec<String>)>,
    /// What was assumed, in sentences for the user.
    pub notes: Vec<String>,
    /// The free-form text that the file's writer left.
    pub metadata: BTreeMap<String, String>,
}

impl Report {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.components.iter().map(|c| c.bytes).sum()
    }

    /// Number of all weights.
    pub fn parameters(&self) -> u64 {
        self.components.iter().map(|c| c.parameters).sum()
    }
}

impl Report {
    /// Takes in another file of the same LoRA.
    pub(super) fn take(&mut self, other: Report) {
        self.components.extend(other.components);
        match (&mut self.lora, other.lora) {
            (Some(lora), Some(more)) => lora.take(more),
            (lora, more) => *lora = lora.take().or(more),
        }
        self.words.extend(other.words);
        self.notes.extend(other.notes);
        self.metadata.extend(other.metadata);
    }

    pub(super) fn is(&mut self, what: What) {
        (self.what, self.used) = (what, what.used().to_string());
    }

    pub(super) fn new(path: &Path, what: What) -> Self {
        Self {
            path: path.to_path_buf(),
            what,
            used: what.used().to_string(),
            components: Vec::new(),
            lora: None,
            words: Vec::new(),
            scheduler: None,
            model_index: None,
            known_words: Vec::new(),
            notes: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }
}

pub(super) fn summarise(name: &str, path: &Path, tensors: Vec<TensorReport>) -> ComponentReport {
    let mut dtypes = BTreeMap::new();
    for tensor in &tensors {
        *dtypes.entry(tensor.dtype).or_default() += 1;
    }
    ComponentReport {
        name: name.to_string(),
        path: path.to_path_buf(),
        config: Value::Null,
        parameters: tensors.iter().map(|t| t.dtype.elements(t.bytes as usize) as u64).sum(),
        bytes: tensors.iter().map(|t| t.bytes).sum(),
        dtypes,
        ignored: Vec::new(),
        tensors,
    }
}

/// Describes a safetensors file by its names, shapes and metadata, without the inference that a
/// whole model gets.
pub fn describe_file(file: &TensorFile) -> Report {
    // Trainers' checkpoints have the model in a dictionary of theirs.
    let names: Vec<&str> =
        file.names().map(|name| name.strip_prefix(TRAINERS).unwrap_or(name)).collect();
    let names = bare(&names);
    let mut report = Report::new(file.path(), classify(&names));
    let is_difference =
        |name: &&str| name.strip_prefix(CONTROL_MODEL).unwrap_or(name) == DIFFERENCE;
    if report.what == What::ControlNet && names.iter().any(is_difference) {
        let note = "its weights are differences: those of the model that it steers are added";
        report.notes.push(note.to_string());
    }
    report.metadata = file.metadata().clone();
    let tensors = file.entries().iter().map(|(name, entry)| TensorReport {
        name: name.clone(),
        dtype: entry.dtype,
        shape: entry.shape.clone(),
        bytes: entry.range.len() as u64,
    });
    report.components.push(summarise("tensors", file.path(), tensors.collect()));
    if file.metadata().contains_key(STATE_KEY) {
        report.is(What::TrainingState);
        return report;
    }
    let lora = lora::describe(file).filter(|_| !report.what.is_beyond_doubt());
    if let Some(found) = lora {
        report.is(if found.words.is_empty() { What::Lora } else { What::Concept });
        if found.made_for.as_ref().is_some_and(|family| !family.is_supported()) {
            report.used = What::OtherModel.used().to_string();
        }
        report.lora = Some(found);
    } else if report.what == What::Unknown {
        let report_of =
            |Embedding { word, vectors, width, .. }| InversionReport { word, vectors, width };
        report.words =
            inversion::embeddings(file).unwrap_or_default().into_iter().map(report_of).collect();
        if !report.words.is_empty() {
            report.is(What::TextualInversion);
        } else if inversion::is_xl(file) {
            report.is(What::TextualInversionSdxl);
            report.words = inversion::of_xl(file).into_iter().map(report_of).collect();
        } else if lora::has_ups(file) {
            report.is(What::Lora);
            report.used = "none as it is: it has the second matrices of a LoRA (up) without the \
                first (down)"
                .to_string();
        } else if let Some(kind) = file.names().find_map(other_change) {
            report.is(What::OtherChange);
            report.used = report.used.replacen("none;", &format!("none; it is {kind}, and"), 1);
        }
    }
    report
}
