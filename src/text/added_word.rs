//! Words that are added to a vocabulary: marks, textual inversion's words, concepts' words.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Error, Result};

/// A word that is one token however it would otherwise be split.
#[derive(Debug, Clone)]
pub(super) struct AddedWord {
    pub content: String,
    pub single_word: bool,
    pub lstrip: bool,
    pub rstrip: bool,
    /// Looked for in the lowercased text rather than in the text as written.
    pub normalized: bool,
    pub special: bool,
}

impl AddedWord {
    /// A word as `transformers`' `add_tokens` makes it of a string.
    pub fn word(content: String) -> Self {
        Self {
            content,
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: true,
            special: false,
        }
    }

    /// A word that marks something, such as the end.
    pub fn mark(content: String) -> Self {
        Self { normalized: false, special: true, ..Self::word(content) }
    }

    /// From a JSON object; `special` overrules what it says. `None`: it has no content.
    pub fn from_object(object: &Map<String, Value>, special: Option<bool>) -> Option<Self> {
        let flag =
            |key: &str, default: bool| object.get(key).and_then(Value::as_bool).unwrap_or(default);
        let special = special.unwrap_or_else(|| flag("special", false));
        Some(Self {
            content: object.get("content")?.as_str()?.to_string(),
            single_word: flag("single_word", false),
            lstrip: flag("lstrip", false),
            rstrip: flag("rstrip", false),
            normalized: flag("normalized", !special),
            special,
        })
    }
}

/// The added words that `tokenizer.json` lists, by id.
pub(super) fn of_tokenizer_json(
    path: &Path,
    file: &Map<String, Value>,
) -> Result<BTreeMap<u32, AddedWord>> {
    let entries = file.get("added_tokens").and_then(Value::as_array).into_iter().flatten();
    let read = |entry: &Value| {
        let id = u32::try_from(entry.get("id")?.as_u64()?).ok()?;
        Some((id, AddedWord::from_object(entry.as_object()?, None)?))
    };
    entries
        .map(|entry| {
            let reason = || format!("the added token {entry} lacks \"id\" or \"content\"");
            read(entry).ok_or_else(|| Error::Invalid { path: path.to_path_buf(), reason: reason() })
        })
        .collect()
}

/// The added words under `added_tokens_decoder` of `tokenizer_config.json`, by id.
pub(super) fn of_config(path: &Path, decoder: &Value) -> Result<BTreeMap<u32, AddedWord>> {
    let bad = |reason: String| Error::Invalid { path: path.to_path_buf(), reason };
    let object =
        decoder.as_object().ok_or_else(|| bad("added_tokens_decoder is not an object".into()))?;
    let read = |(id, entry): (&String, &Value)| {
        let id = id.parse::<u32>().ok()?;
        Some((id, AddedWord::from_object(entry.as_object()?, None)?))
    };
    object
        .iter()
        .map(|(id, entry)| {
            read((id, entry)).ok_or_else(|| {
                bad(format!("added_tokens_decoder has \"{id}\": {entry}, not an id and a token"))
            })
        })
        .collect()
}
