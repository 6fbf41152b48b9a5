//! What can be wrong with a concept, its file, or its use.

use std::path::PathBuf;

use crate::checkpoint::{self, ModelHash, Network};
use crate::text;
use crate::watch::Cancelled;

/// What can be wrong with a concept, its file, or its use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The watch asked it to end; nothing is written.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// A file that is no file of tensors.
    #[error(transparent)]
    Checkpoint(checkpoint::Error),
    /// A file that holds no concept, or one that this program cannot use.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// One tensor of a file, as the file names it.
    #[error("{}: tensor `{tensor}`: {problem}", path.display())]
    Tensor {
        /// The file or folder.
        path: PathBuf,
        /// As the file names it.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// Two concepts in use have the same word.
    #[error(
        "the concepts `{first}` and `{second}` both have the word {word}; give one of them \
            another word: \
         `mos convert FILE OUT --rename '{word}=<other>'`"
    )]
    SameWord {
        /// The word.
        word: String,
        /// Name of one concept.
        first: String,
        /// Name of the other.
        second: String,
    },
    /// A word that cannot be added to the model's vocabulary.
    #[error(
        "concept `{concept}`: {source}; `mos convert FILE OUT --rename '{word}=<other>'` gives it \
            another name"
    )]
    Word {
        /// The concept's name.
        concept: String,
        /// The word.
        word: String,
        /// What is wrong with it.
        source: text::Error,
    },
    /// A word cannot be given another name.
    #[error("--rename '{word}={new}': concept `{concept}`: {problem}")]
    Rename {
        /// The concept's name.
        concept: String,
        /// The word as it is.
        word: String,
        /// The name that it was to have.
        new: String,
        /// What is wrong.
        problem: String,
    },
    /// A word with another number of embeddings than the model has cross-attentions.
    #[error(
        "concept `{concept}`: the word {word} has {found} embeddings, but the model's UNet has \
            {expected} cross-attentions: \
         it belongs to another kind of model"
    )]
    WordLayers {
        /// The concept's name.
        concept: String,
        /// The word.
        word: String,
        /// Embeddings that it has.
        found: usize,
        /// Cross-attentions of the model.
        expected: usize,
    },
    /// A word with embeddings of another width than the model's text encoder.
    #[error(
        "concept `{concept}`: the word {word} is {found} wide, but the model's text encoder is \
            {expected} wide: it belongs to \
         another kind of model"
    )]
    WordWidth {
        /// The concept's name.
        concept: String,
        /// The word.
        word: String,
        /// Their width.
        found: usize,
        /// The text encoder's.
        expected: usize,
    },
    /// An update of something that the model does not have.
    #[error(
        "concept `{concept}`: it updates the layer `{layer}` of the {network}, which the model \
            does not have"
    )]
    NoLayer {
        /// The concept's name.
        concept: String,
        /// The network that it is in.
        network: Network,
        /// The layer's full name.
        layer: String,
    },
    /// An update of a weight that has another shape in the model.
    #[error(
        "concept `{concept}`: it updates the layer `{layer}` of the {network} as {kind} of \
            shape {found:?}, but the model's is \
         {expected:?}: it belongs to another kind of model"
    )]
    LayerShape {
        /// The concept's name.
        concept: String,
        /// The network that it is in.
        network: Network,
        /// The layer's full name.
        layer: String,
        /// What the update changes: a weight, or what else.
        kind: &'static str,
        /// The shape that the update is for.
        found: Box<[usize]>,
        /// The model's.
        expected: Box<[usize]>,
    },
    /// An update of something that is neither a linear layer nor a convolution.
    #[error(
        "concept `{concept}`: it updates `{layer}` of the {network}, which is no linear layer or \
            convolution that can be updated"
    )]
    NotUpdatable {
        /// The concept's name.
        concept: String,
        /// The network that it is in.
        network: Network,
        /// The layer's full name.
        layer: String,
    },
    /// A concept of another kind of model.
    #[error("concept `{concept}` was made for {made_for}, and this is {model}")]
    OtherKind {
        /// The concept's name.
        concept: String,
        /// What it was made for, in words.
        made_for: String,
        /// What the model is, in words.
        model: String,
    },
    /// A word without an embedding for one of the model's text encoders.
    #[error("concept `{concept}`: the word {word} has no embedding for the model's {network}")]
    NoRows {
        /// The concept's name.
        concept: String,
        /// The word.
        word: String,
        /// The text encoder.
        network: Network,
    },
    /// A concept of another base model.
    #[error(
        "concept `{concept}` was made for another model: its base model's hash is {wanted}, this \
            model's is {found}; \
         --force-base uses it all the same"
    )]
    OtherBase {
        /// The concept's name.
        concept: String,
        /// Hash of the model that it was tuned on.
        wanted: ModelHash,
        /// Hash of this model.
        found: ModelHash,
    },
    /// Several that should become one, made for different models.
    #[error(
        "concept `{concept}` was made for another model (its hash is {found}) than those before it \
            ({first}); --base MODEL says which one is meant"
    )]
    DifferentBases {
        /// The concept's name.
        concept: String,
        /// Hash of the model that it was tuned on.
        found: ModelHash,
        /// Hash of the model of those before it.
        first: ModelHash,
    },
    /// A change that cannot be written as a LoRA as it is.
    #[error(
        "concept `{concept}`: its change of `{layer}` of the {network} is no product of two \
            matrices ({kind}): --rank N makes one of it"
    )]
    NoProduct {
        /// The concept's name.
        concept: String,
        /// The network that it is in.
        network: Network,
        /// The layer's full name.
        layer: String,
        /// The kind of the change.
        kind: &'static str,
    },
    /// A change that is known only together with the model's weights.
    #[error(
        "concept `{concept}`: what its {kind} does to `{layer}` of the {network} depends on the \
            model's weights: --base MODEL says which model"
    )]
    NeedsWeights {
        /// The concept's name.
        concept: String,
        /// The network that it is in.
        network: Network,
        /// The layer's full name.
        layer: String,
        /// The kind of the change.
        kind: &'static str,
    },
    /// A change whose singular values cannot be found: some of its numbers are none.
    #[error("concept `{concept}`: the change of `{layer}` of the {network} has no singular values")]
    NoSolution {
        /// The concept's name.
        concept: String,
        /// The network that it is in.
        network: Network,
        /// The layer's full name.
        layer: String,
    },
    /// A strength that is no number.
    #[error("concept `{concept}`: {scale} is no scale; expected a number")]
    Scale {
        /// The concept's name.
        concept: String,
        /// The strength.
        scale: f32,
    },
}

impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Error {
        match error {
            checkpoint::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Checkpoint(error),
        }
    }
}

/// Of the calls of concepts and their files.
pub type Result<T, E = Error> = std::result::Result<T, E>;
