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
    /// The system cannot read the file.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    #[error("{}: no tokenizer here: expected tokenizer.json, or vocab.json and \
        merges.txt", folder.display())]
    /// A folder without a tokenizer's files.
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// A file that is no tokenizer, or damaged.
    #[error("{}: not a valid tokenizer file: {reason}", path.display())]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A token that marks something is not in the vocabulary.
    #[error("the tokenizer has no token \"{token}\", which is to mark {purpose}")]
    NoMark {
        /// The token.
        token: String,
        /// What it marks.
        purpose: &'static str,
    },
    /// A word that cannot be added to the vocabulary.
    #[error("\"{word}\" cannot be added to the vocabulary: {reason}")]
    Word {
        /// The word.
        word: String,
        /// What is wrong.
        reason: String,
    },
    /// Text that the tokenizer refuses.
    #[error("the prompt could not be tokenized: {reason}")]
    Tokenize {
        /// What is wrong.
        reason: String,
    },
    /// A weight that is out of range.
    #[error(
        "the prompt gives \"{text}\" the weight {weight}, but weights go from -{max} to {max}; \
            brackets that are meant as text are written \\( and \\)",
        max = prompt::MAX_WEIGHT
    )]
    Weight {
        /// What it is the weight of.
        text: String,
        /// The weight.
        weight: f32,
    },
    /// Two prompts whose chunks have different lengths.
    #[error(
        "prompts of {left} and {right} tokens per chunk cannot be padded to the same number of \
            chunks"
    )]
    ChunkLength {
        /// Tokens of a chunk of one.
        left: usize,
        /// Tokens of a chunk of the other.
        right: usize,
    },
    /// Encodings that are not as many as the tokens.
    #[error(
        "{values} encoded values do not divide into {positions} positions of {width} values each"
    )]
    Weights {
        /// Values that there are.
        values: usize,
        /// Tokens.
        positions: usize,
        /// Values of a token.
        width: usize,
    },
}

/// Of the calls of tokenizers and prompts.
pub type Result<T> = std::result::Result<T, Error>;
