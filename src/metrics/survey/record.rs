//! One picture's scores, in a file beside it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::settings::{FORMAT, write_json};
use super::{Error, Item, Result, Settings};
use crate::pipeline::recipe::hex;

/// One picture's scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub mos_eval: u32,
    /// SHA-256 of the picture's file.
    pub picture: String,
    /// Hash of all that the scores depend on besides.
    pub scoring: String,
    /// By the names of their metrics.
    pub scores: BTreeMap<String, f64>,
    /// Of a picture of several: who should stand where, and how much it looks like whom.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub places: Vec<PlaceRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlaceRecord {
    pub expected: String,
    pub likeness: BTreeMap<String, f64>,
}

impl Record {
    pub fn new(picture: String, scoring: String) -> Record {
        Record { mos_eval: FORMAT, picture, scoring, scores: BTreeMap::new(), places: Vec::new() }
    }

    /// The record in that file, if there is one that is whole.
    pub fn read(path: &Path) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }
}

/// SHA-256 of a file's bytes.
pub(super) fn hash_of(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    Ok(hex(&Sha256::digest(bytes)))
}

impl Settings {
    /// Hash of all that an item's scores depend on, but for its picture.
    pub(super) fn scoring(&self, item: &Item) -> String {
        // Whoever stands in a region is compared with everybody.
        let everybody: Vec<usize> = (0..self.concepts.len()).collect();
        let who = if item.scene.is_some() { &everybody } else { &item.concepts };
        let told = serde_json::json!({
            "text": item.text,
            "concepts": item.concepts,
            "parts": item.scene.map(|scene| &self.scenes[scene].parts),
            "references": who
                .iter()
                .map(|i| (&self.concepts[*i].name, &self.concepts[*i].references_hash))
                .collect::<Vec<_>>(),
            "towers": self.towers.iter().map(|(name, t)| (name, &t.hash)).collect::<Vec<_>>(),
            "judge": self.judge,
            "as_published": self.as_published,
        });
        hex(&Sha256::digest(told.to_string()))
    }
}
