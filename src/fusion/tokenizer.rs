//! The tokenizer's files with tokens added, as `transformers` writes and reads them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::checkpoint::TokenizerFiles;
use crate::text;

use super::{Error, Result};

/// Tokens that follow the vocabulary.
pub(super) struct Added {
    /// Id of the first one.
    pub first_id: usize,
    pub names: Vec<String>,
}

impl Added {
    fn numbered(&self) -> impl Iterator<Item = (usize, &str)> {
        self.names.iter().enumerate().map(|(i, name)| (self.first_id + i, name.as_str()))
    }
}

fn flags() -> Map<String, Value> {
    let pairs = [
        ("lstrip", false),
        ("normalized", true),
        ("rstrip", false),
        ("single_word", false),
        ("special", false),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_string(), value.into())).collect()
}

/// Writes all files of `files` to `folder`, with `added` in every one that lists tokens.
pub(super) fn write(folder: &Path, files: &TokenizerFiles, added: &Added) -> Result<()> {
    let contents: Vec<(String, Vec<u8>)> = match files {
        TokenizerFiles::Folder(from) => {
            let names = from.names().into_iter().filter(|name| from.has(name));
            names
                .map(|name| Ok((name.clone(), from.read(&name)?.unwrap_or_default().into_owned())))
                .collect::<Result<_>>()?
        }
        TokenizerFiles::Texts(texts) => {
            texts.iter().map(|(name, text)| (name.clone(), text.clone().into_bytes())).collect()
        }
        TokenizerFiles::Standard { pad } => text::standard_files(pad)?
            .into_iter()
            .map(|(name, text)| (name, text.into_bytes()))
            .collect(),
    };
    let mut has_list = false;
    for (name, bytes) in contents {
        let path = folder.join(&name);
        if !matches!(
            name.as_str(),
            "tokenizer.json" | "tokenizer_config.json" | "added_tokens.json"
        ) {
            fs::write(&path, bytes).map_err(Error::io(&path, "write"))?;
            continue;
        }
        let mut value: Value =
            serde_json::from_slice(&bytes).map_err(|e| Error::file(&path, e.to_string()))?;
        match name.as_str() {
            "added_tokens.json" => {
                has_list = true;
                list(&mut value, added);
            }
            "tokenizer.json" => {
                let entry = |(id, content): (usize, &str)| {
                    let mut entry = Map::from_iter([
                        ("id".to_string(), json!(id)),
                        ("content".to_string(), json!(content)),
                    ]);
                    entry.extend(flags());
                    Value::Object(entry)
                };
                if let Some(tokens) = value.get_mut("added_tokens").and_then(Value::as_array_mut) {
                    tokens.extend(added.numbered().map(entry));
                } else {
                    value["added_tokens"] = added.numbered().map(entry).collect();
                }
            }
            _ => {
                if let Some(decoder) =
                    value.get_mut("added_tokens_decoder").and_then(Value::as_object_mut)
                {
                    for (id, content) in added.numbered() {
                        let mut entry = Map::from_iter([("content".to_string(), json!(content))]);
                        entry.extend(flags());
                        decoder.insert(id.to_string(), Value::Object(entry));
                    }
                }
            }
        }
        put_json(&path, &value)?;
    }
    if !has_list && !added.names.is_empty() {
        let mut value = json!({});
        list(&mut value, added);
        put_json(&folder.join("added_tokens.json"), &value)?;
    }
    Ok(())
}

fn list(value: &mut Value, added: &Added) {
    for (id, name) in added.numbered() {
        value[name] = json!(id);
    }
}

pub(super) fn put_json(path: &Path, value: &Value) -> Result<()> {
    put(path, &json_text(path, value)?)
}

pub(super) fn json_text(path: &Path, value: &Value) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|e| Error::file(path, e.to_string()))
}

pub(super) fn put(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::io(path, "write"))
}
