//! What this program wrote of a fused model, and whether it still is as it was: the note lists each
//! file with its hash, so that what somebody edited since is theirs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::members::{hash_of, hex};
use super::tokenizer::{json_text, put};
use super::{Error, Result};
use crate::output;

/// The file that says which tokens a word is.
pub const WORDS_FILE: &str = "new_concept_cfg.json";
/// The note of what went in.
pub const NOTE_FILE: &str = "fusion.json";
/// The key of the note under which the model's files are listed.
const FILES: &str = "files";
/// The key of a list under which its own hash is: of its text without this.
const SEAL: &str = "sha256";
/// What is written into a model that is done: its report, and the list of what is in that, which
/// stands apart since a report differs from run to run.
const REPORT: [&str; 4] =
    ["report/report.html", "report/report.json", "report/report.md", "report/sheet.png"];
const REPORT_LIST: &str = "report/written.json";
/// The files of models that were fused before their notes listed them.
const UNLISTED: [&str; 18] = [
    NOTE_FILE,
    WORDS_FILE,
    "generation_config.json",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/added_tokens.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "feature_extractor/preprocessor_config.json",
];

/// The files of a model that this program wrote, relative to it, each with its hash where that was
/// noted.
#[derive(Debug, Default)]
pub(super) struct Written(BTreeMap<PathBuf, Option<String>>);

/// What a file in a fused model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This program wrote it.
    Ours,
    /// This program wrote it, and somebody changed it since.
    Edited,
    /// Somebody else's.
    Theirs,
}

impl Written {
    /// Reads the lists of the model in `folder`.
    ///
    /// # Errors
    /// A folder that this program did not fuse.
    pub fn read(folder: &Path) -> Result<Written> {
        let refused = |why: String| {
            Error::file(
                folder,
                format!("it is no model that this program fused, so it is not replaced: {why}"),
            )
        };
        let text = fs::read_to_string(folder.join(NOTE_FILE))
            .map_err(|e| refused(format!("{NOTE_FILE} in it cannot be read: {e}")))?;
        let note: Value = serde_json::from_str(&text)
            .map_err(|e| refused(format!("{NOTE_FILE} in it is damaged: {e}")))?;
        if note.get("mos_fusion").is_none() {
            return Err(refused(format!("{NOTE_FILE} in it is another program's")));
        }
        let mut written = Written::default();
        match note.get(FILES) {
            Some(Value::Object(files)) => written.add(files),
            Some(Value::Array(files)) => {
                let names = files.iter().filter_map(Value::as_str);
                written.0.extend(names.map(|name| (name.into(), None)));
            }
            _ => written.0.extend(UNLISTED.map(|name| (name.into(), None))),
        }
        written.list(NOTE_FILE, &text, note);
        match fs::read_to_string(folder.join(REPORT_LIST)) {
            Ok(text) => {
                let list: Value = serde_json::from_str(&text).unwrap_or_default();
                list.get(FILES).and_then(Value::as_object).iter().for_each(|f| written.add(f));
                written.list(REPORT_LIST, &text, list);
            }
            // Of the time before there was one.
            Err(_) => written.0.extend(REPORT.map(|name| (name.into(), None))),
        }
        Ok(written)
    }

    fn add(&mut self, files: &Map<String, Value>) {
        let hash = |value: &Value| value.as_str().map(str::to_string);
        self.0.extend(files.iter().map(|(name, value)| (name.into(), hash(value))));
    }

    /// Adds a list itself: with no hash where it is as it was, or tells nothing of that; else with
    /// one that it cannot have.
    fn list(&mut self, name: &str, text: &str, mut list: Value) {
        let seal = list.as_object_mut().and_then(|list| list.shift_remove(SEAL));
        let is_edited = seal.is_some_and(|seal| {
            let sealed = sealed(Path::new(name), list);
            !sealed.is_ok_and(|now| now == text && seal.is_string())
        });
        self.0.insert(name.into(), is_edited.then(String::new));
    }

    /// Whose the file `name` of the model in `folder` is.
    pub fn whose(&self, folder: &Path, name: &Path) -> Whose {
        match self.0.get(name) {
            None => Whose::Theirs,
            Some(None) => Whose::Ours,
            Some(Some(hash)) => match hash_of(&folder.join(name)) {
                Ok(found) if found == *hash => Whose::Ours,
                _ => Whose::Edited,
            },
        }
    }

    /// Whether anything in this folder of the model is listed.
    pub fn is_in(&self, inside: &Path) -> bool {
        self.0.keys().any(|name| name.starts_with(inside))
    }

    /// The folders of the model with anything in them that is listed, the model itself included.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().flat_map(|name| name.ancestors().skip(1))
    }
}

/// A list with its own hash, as it stands in its file.
fn sealed(path: &Path, mut list: Value) -> Result<String> {
    let hash = hex(&Sha256::digest(json_text(path, &list)?));
    list[SEAL] = hash.into();
    json_text(path, &list)
}

/// The hashes of these files in `folder`.
fn hashes(folder: &Path, names: &[String]) -> Result<Value> {
    let hash = |name: &String| Ok((name.clone(), hash_of(&folder.join(name))?.into()));
    Ok(Value::Object(names.iter().map(hash).collect::<Result<_>>()?))
}

/// Writes `note` into the model in `folder`, with the list of these files, which are in it.
pub(super) fn note(folder: &Path, mut note: Value, files: &[String]) -> Result<()> {
    note[FILES] = hashes(folder, files)?;
    let path = folder.join(NOTE_FILE);
    put(&path, &sealed(&path, note)?)
}

/// Notes the report that was written into the fused model in `folder`.
///
/// # Errors
/// Whatever the system says.
pub fn note_report(folder: &Path) -> Result<()> {
    let mut files: Vec<String> = REPORT.map(String::from).into();
    files.retain(|name| folder.join(name).is_file());
    let mut list = Value::Object(Map::new());
    list[FILES] = hashes(folder, &files)?;
    let path = folder.join(REPORT_LIST);
    let text = sealed(&path, list)?;
    output::write(&path, |out| out.write_all(text.as_bytes())).map_err(Error::io(&path, "write"))
}
