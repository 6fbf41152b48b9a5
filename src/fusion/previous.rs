//! A model that was fused before: what went in, so that concepts can be added and taken away.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::members::ConceptToFuse;
use super::report::ConceptReport;
use super::settings::Settings;
use super::store::Store;
use super::written::NOTE_FILE;
use super::{Error, Result};
use crate::elsewhere::{Elsewhere, Nowhere};

/// The note of a fused model.
#[derive(Clone, Debug)]
pub struct Previous {
    /// The base model, as it was named.
    pub base: String,
    /// Hash of the base model, in hexadecimal digits.
    pub base_hash: String,
    /// What was fused.
    pub concepts: Vec<ConceptReport>,
    /// The keys of the concepts, batch by batch as they came.
    pub history: Vec<Vec<String>>,
    /// How; none where the note is of a time when it did not tell.
    pub settings: Option<Settings>,
}

impl Previous {
    /// Reads the note of the fused model in `folder`.
    ///
    /// # Errors
    /// A folder that this program did not fuse.
    pub fn open(folder: &Path) -> Result<Previous> {
        let path = folder.join(NOTE_FILE);
        if !path.exists() {
            let problem = format!("no model that this program fused: it has no {NOTE_FILE}");
            return Err(Error::file(folder, problem));
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "read"))?;
        let bad = |problem: String| Error::file(&path, problem);
        let note: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if note.get("mos_fusion") != Some(&Value::from(1)) {
            return Err(bad("not the note of a fusion that this program knows".into()));
        }
        let text = |key: &str| {
            let value = note.get(key).and_then(Value::as_str).map(String::from);
            value.ok_or_else(|| bad(format!("`{key}` is missing")))
        };
        let concepts = note.get("concepts").cloned().unwrap_or_default();
        let concepts: Vec<ConceptReport> =
            serde_json::from_value(concepts).map_err(|e| bad(format!("`concepts`: {e}")))?;
        let settings = note.get("settings").cloned().map(serde_json::from_value).transpose();
        let settings = settings.map_err(|e| bad(format!("`settings`: {e}")))?;
        let history = note.get("history").cloned().map(serde_json::from_value).transpose();
        let history = history.map_err(|e| bad(format!("`history`: {e}")))?;
        let all = || vec![concepts.iter().map(|concept| concept.key.clone()).collect()];
        let history = history.unwrap_or_else(all);
        let (base, base_hash) = (text("base")?, text("base_hash")?);
        Ok(Previous { base, base_hash, concepts, history, settings })
    }

    /// The concepts as they went in, from the statistics folder.
    ///
    /// # Errors
    /// A concept that is not in the folder.
    pub fn entries(&self, statistics: &Path) -> Result<Vec<ConceptToFuse>> {
        let nowhere: Arc<dyn Elsewhere> = Arc::new(Nowhere);
        self.entries_from(statistics, &nowhere)
    }

    /// As [`Previous::entries`], of a folder that something stands behind.
    ///
    /// # Errors
    /// A concept that is in neither; what cannot be brought.
    pub fn entries_from(
        &self,
        statistics: &Path,
        elsewhere: &Arc<dyn Elsewhere>,
    ) -> Result<Vec<ConceptToFuse>> {
        let store = Store::open(statistics, Arc::clone(elsewhere))?;
        let mut entries = Vec::new();
        for listed in &self.concepts {
            let concept = store.concept(&listed.key)?.ok_or_else(|| {
                let problem =
                    format!("the concept `{}` that is in the fused model is not here", listed.name);
                Error::file(statistics, problem)
            })?;
            let entry = ConceptToFuse {
                concept,
                path: listed.path.clone().into(),
                unet: listed.unet,
                text: listed.text,
                prompt: Some(listed.phrase.clone()),
            };
            // ListedConcept twice, it weighs 2.
            entries.extend(std::iter::repeat_n(entry, listed.weight.max(1.0) as usize));
        }
        Ok(entries)
    }
}
