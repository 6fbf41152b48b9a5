//! From a prompt to token ids: CLIP's byte-pair tokenizer, prompt weights and prompts of any
//! length.
//!
//! [`Tokenizer`] follows a model's own files (or CLIP's standard vocabulary for checkpoints that
//! bring none); [`prompt::encode`] turns a prompt into chunks of ids that the text encoder reads.
mod added_word;
mod known_words;
pub mod prompt;
mod tokenizer;
mod vocabulary;

use std::path::PathBuf;

pub use known_words::{KNOWN_WORDS_FILE, KnownWords};
pub use tokenizer::{Token, Tokenizer};
pub use vocabulary::standard_files;

/// What can go wrong between a prompt and its token ids.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: no tokenizer here: expected tokenizer.json, or vocab.json and \
        merges.txt", folder.display())]
    NoTokenizer { folder: PathBuf },
    #[error("{}: not a valid tokenizer file: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error("the tokenizer has no token \"{token}\", which is to mark {purpose}")]
    NoMark { token: String, purpose: &'static str },
    #[error("\"{word}\" cannot be added to the vocabulary: {reason}")]
    Word { word: String, reason: String },
    #[error("the prompt could not be tokenized: {reason}")]
    Tokenize { reason: String },
    #[error(
        "the prompt gives \"{text}\" the weight {weight}, but weights go from -{max} to {max}; \
            brackets that are meant as text are written \\( and \\)",
        max = prompt::MAX_WEIGHT
    )]
    Weight { text: String, weight: f32 },
    #[error(
        "prompts of {left} and {right} tokens per chunk cannot be padded to the same number of \
            chunks"
    )]
    ChunkLength { left: usize, right: usize },
    #[error(
        "{values} encoded values do not divide into {positions} positions of {width} values each"
    )]
    Weights { values: usize, positions: usize, width: usize },
}

pub type Result<T> = std::result::Result<T, Error>;
