//! What can be wrong with a concept, its file, or its use.

use std::path::PathBuf;

use crate::checkpoint::{self, ModelHash, Network};
use crate::text;
use crate::watch::Cancelled;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The watch asked it to end; nothing is written.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    #[error(transparent)]
    Checkpoint(checkpoint::Error),
    /// A file that holds no concept, or one that this program cannot use.
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: String },
    /// One tensor of a file, as the file names it.
    #[error("{}: tensor `{tensor}`: {problem}", path.display())]
    Tensor { path: PathBuf, tensor: String, problem: String },
    #[error(
        "the concepts `{first}` and `{second}` both have the word {word}; give one of them \
            another word: \
         `mos convert FILE OUT --rename '{word}=<other>'`"
    )]
    SameWord { word: String, first: String, second: String },
    #[error(
        "concept `{concept}`: {source}; `mos convert FILE OUT --rename '{word}=<other>'` gives it \
            another name"
    )]
    Word { concept: String, word: String, source: text::Error },
    #[error("--rename '{word}={new}': concept `{concept}`: {problem}")]
    Rename { concept: String, word: String, new: String, problem: String },
    #[error(
        "concept `{concept}`: the word {word} has {found} embeddings, but the model's UNet has \
            {expected} cross-attentions: \
         it belongs to another kind of model"
    )]
    WordLayers { concept: String, word: String, found: usize, expected: usize },
    #[error(
        "concept `{concept}`: the word {word} is {found} wide, but the model's text encoder is \
            {expected} wide: it belongs to \
         another kind of model"
    )]
    WordWidth { concept: String, word: String, found: usize, expected: usize },
    /// An update of something that the model does not have.
    #[error(
        "concept `{concept}`: it updates the layer `{layer}` of the {network}, which the model \
            does not have"
    )]
    NoLayer { concept: String, network: Network, layer: String },
    #[error(
        "concept `{concept}`: it updates the layer `{layer}` of the {network} as a weight of \
            shape {found:?}, but the model's is \
         {expected:?}: it belongs to another kind of model"
    )]
    LayerShape {
        concept: String,
        network: Network,
        layer: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error(
        "concept `{concept}`: it updates `{layer}` of the {network}, which is no linear layer or \
            convolution that can be updated"
    )]
    NotUpdatable { concept: String, network: Network, layer: String },
    #[error(
        "concept `{concept}` was made for another model: its base model's hash is {wanted}, this \
            model's is {found}; \
         --force-base uses it all the same"
    )]
    OtherBase { concept: String, wanted: ModelHash, found: ModelHash },
    /// Several that should become one.
    #[error(
        "concept `{concept}` was made for another model (its hash is {found}) than those before it \
            ({first}); --base MODEL says which one is meant"
    )]
    DifferentBases { concept: String, found: ModelHash, first: ModelHash },
    #[error(
        "concept `{concept}`: its change of `{layer}` of the {network} is no product of two \
            matrices ({kind}): --rank N makes one of it"
    )]
    NoProduct { concept: String, network: Network, layer: String, kind: &'static str },
    #[error(
        "concept `{concept}`: what its {kind} does to `{layer}` of the {network} depends on the \
            model's weights: --base MODEL says which model"
    )]
    NeedsWeights { concept: String, network: Network, layer: String, kind: &'static str },
    #[error("concept `{concept}`: the change of `{layer}` of the {network} has no singular values")]
    NoSolution { concept: String, network: Network, layer: String },
    #[error("concept `{concept}`: {scale} is no scale; expected a number")]
    Scale { concept: String, scale: f32 },
}

impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Error {
        match error {
            checkpoint::Error::Cancelled(cancelled) => Error::Cancelled(cancelled),
            error => Error::Checkpoint(error),
        }
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
