//! Concepts' files, read once and kept while they do not change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::checkpoint::adapter_files;
use crate::concept::{Applied, Concept, Network, dialects};
use crate::pipeline::recipe::{ConceptSource, Source};

use super::order::Wanted;
use super::problem::Problem;

/// The most files that stay read.
const KEPT: usize = 64;

/// A file as it was when it was read.
#[derive(Clone)]
struct ReadFile {
    changed: Option<SystemTime>,
    length: u64,
    source: Source,
    concept: Concept,
    notes: Vec<String>,
}

/// Those that were read.
#[derive(Default)]
pub struct Concepts {
    files: HashMap<PathBuf, ReadFile>,
}

/// A concept in use, and how settings tell of it.
pub struct Used {
    pub applied: Applied,
    pub source: ConceptSource,
    pub notes: Vec<String>,
}

impl Concepts {
    /// Of its files, in use.
    pub fn open(&mut self, wanted: &Wanted) -> Result<Vec<Used>, Problem> {
        let Some(path) = &wanted.listed.path else { return Ok(Vec::new()) };
        let mut used = Vec::new();
        for file in adapter_files(path)? {
            let ReadFile { source, concept, notes, .. } = self.read(&file)?;
            let source = ConceptSource {
                source,
                scale: wanted.scale,
                text_scale: wanted.text_scale.filter(|text| *text != wanted.scale),
            };
            let scale = |network: Network| source.scale_of(network);
            let applied = Applied::scaled(concept, scale)
                .map_err(|error| Problem::asked(error.to_string()).of("concepts"))?;
            let name = &wanted.listed.name;
            let notes = notes.iter().map(|note| format!("{name}: {note}")).collect();
            used.push(Used { applied, source, notes });
        }
        Ok(used)
    }

    /// The words that stand for it in prompts.
    pub fn words(&mut self, path: &Path) -> Result<Vec<String>, Problem> {
        let mut words = Vec::new();
        for file in adapter_files(path)? {
            words.extend(self.read(&file)?.concept.words.into_iter().map(|word| word.text));
        }
        Ok(words)
    }

    fn read(&mut self, path: &Path) -> Result<ReadFile, Problem> {
        let now = std::fs::metadata(path)?;
        let (changed, length) = (now.modified().ok(), now.len());
        let known = self.files.get(path);
        if let Some(known) = known.filter(|k| k.changed == changed && k.length == length) {
            return Ok(known.clone());
        }
        let (concept, notes) = dialects::read(path)?;
        let read = ReadFile { changed, length, source: Source::of(path)?, concept, notes };
        if self.files.len() >= KEPT {
            self.files.clear();
        }
        self.files.insert(path.to_path_buf(), read.clone());
        Ok(read)
    }
}
