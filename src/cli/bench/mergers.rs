//! Ways to merge trained concepts into one model, each model kept with a note of what it is made
//! of, so that it is not made again.
use std::path::{Path, PathBuf};
use std::time::Instant;

use mixofshow::backend::Device;
use mixofshow::checkpoint::Checkpoint;
use mixofshow::fusion::solve::{Lbfgs, Loraclr, Merge, Solver, Way};
use mixofshow::fusion::{self, ConceptToFuse, Distillation, Order, Report, Settings};
use mixofshow::training::step::Method;
use mixofshow::{Watch, pipeline::recipe::Source};
use serde::{Deserialize, Serialize};

use crate::cli::{Result, files};

/// A way to merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Merger {
    Averaged,
    Lbfgs,
    Exact,
    Distilled,
    Loraclr,
    Ties,
    Dare,
    Orthogonal,
}

impl Merger {
    pub const ALL: [Merger; 8] = [
        Merger::Averaged,
        Merger::Lbfgs,
        Merger::Exact,
        Merger::Distilled,
        Merger::Loraclr,
        Merger::Ties,
        Merger::Dare,
        Merger::Orthogonal,
    ];

    /// As options and folders call it.
    pub fn name(self) -> &'static str {
        match self {
            Merger::Averaged => "averaged",
            Merger::Lbfgs => "l-bfgs",
            Merger::Exact => "exact",
            Merger::Distilled => "distilled",
            Merger::Loraclr => "loraclr",
            Merger::Ties => "ties",
            Merger::Dare => "dare",
            Merger::Orthogonal => "orthogonal",
        }
    }

    /// As rows call it.
    pub fn title(self) -> &'static str {
        match self {
            Merger::Averaged => "averaged",
            Merger::Lbfgs => "L-BFGS as published",
            Merger::Exact => "exact",
            Merger::Distilled => "exact and distilled",
            Merger::Loraclr => "LoRACLR",
            Merger::Ties => "TIES",
            Merger::Dare => "DARE",
            Merger::Orthogonal => "orthogonal, summed",
        }
    }

    /// By which method the concepts are taught that it merges.
    pub fn method(self) -> Method {
        match self {
            Merger::Orthogonal => Method::Orthogonal,
            _ => Method::EdLora,
        }
    }

    fn settings(self) -> Settings {
        let merge = |way| Settings::of(Solver::Merge(Merge::new(way)));
        match self {
            Merger::Averaged => Settings::of(Solver::Average),
            Merger::Lbfgs => Settings::of(Solver::Lbfgs(Lbfgs { iterations: 0 })),
            Merger::Exact => Settings { distillation: Distillation::NONE, ..Settings::default() },
            Merger::Distilled => Settings::default(),
            Merger::Loraclr => Settings::of(Solver::Loraclr(Loraclr::default())),
            Merger::Ties => merge(Way::Ties),
            Merger::Dare => merge(Way::Dare),
            Merger::Orthogonal => merge(Way::Sum),
        }
    }
}

impl std::str::FromStr for Merger {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let found = Merger::ALL.into_iter().find(|merger| merger.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = Merger::ALL.iter().map(|merger| merger.name()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// What a kept model is made of, and what its report told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    base: String,
    /// Hashes of the concepts' files.
    concepts: Vec<String>,
    settings: serde_json::Value,
    /// Of the fusion.
    pub seconds: f64,
    /// What stands for each concept, in the order of what follows.
    pub phrases: Vec<String>,
    /// Of each two, what was predicted that they are in each other's way; nothing of mergers that
    /// look at no inputs.
    pub conflicts: Option<Vec<Vec<f64>>>,
    /// How alike their inputs are.
    pub alike: Option<Vec<Vec<f64>>>,
    /// How much of a concept's change (column) reaches the inputs of another (row).
    pub contact: Option<Vec<Vec<f64>>>,
}

/// Where the model of a cast goes, and its note.
pub fn places(output: &Path, cast: &str, merger: Merger) -> [PathBuf; 2] {
    let name = format!("fused-{cast}-{}", merger.name());
    [output.join(&name), output.join(format!("{name}.json"))]
}

/// The model in its place if it is as it would be made, else a new one, which is put there.
pub fn fused(
    [out, noted]: &[PathBuf; 2],
    merger: Merger,
    entries: &[ConceptToFuse],
    checkpoint: &Checkpoint,
    gpu: &Device,
    watch: &mut Watch,
) -> Result<Note> {
    let settings = merger.settings();
    let mut concepts = entries
        .iter()
        .map(|entry| Ok(Source::of(&entry.path)?.sha256))
        .collect::<Result<Vec<String>>>()?;
    concepts.sort();
    let wanted = Note {
        base: checkpoint.base_hash().to_string(),
        concepts,
        settings: serde_json::to_value(&settings)?,
        seconds: 0.0,
        phrases: Vec::new(),
        conflicts: None,
        alike: None,
        contact: None,
    };
    let there = std::fs::read(noted).ok().filter(|_| out.is_dir());
    let there = there.and_then(|text| serde_json::from_slice::<Note>(&text).ok());
    if let Some(note) = there.filter(|note| note.is_of(&wanted)) {
        return Ok(note);
    }
    let order = Order { replace: true, ..Order::new(entries.to_vec(), out.clone()) };
    let start = Instant::now();
    let made = fusion::fuse(gpu, checkpoint, order, &settings, watch)?;
    let note = Note { seconds: start.elapsed().as_secs_f64(), ..wanted.with(&made.report) };
    let text = serde_json::to_string_pretty(&note)? + "\n";
    files::write(noted, text.as_bytes())?;
    Ok(note)
}

impl Note {
    /// Both of the same model.
    fn is_of(&self, wanted: &Note) -> bool {
        let made_of = |note: &Note| {
            // Numbers as text has them.
            let settings = serde_json::to_string(&note.settings).unwrap_or_default();
            (note.base.clone(), note.concepts.clone(), settings)
        };
        made_of(self) == made_of(wanted)
    }

    fn with(self, report: &Report) -> Note {
        let names: Vec<&str> = report.concepts.iter().map(|c| c.name.as_str()).collect();
        let of_pairs = |figure: &dyn Fn(&fusion::Conflict) -> f64| {
            let mut table = vec![vec![0.0; names.len()]; names.len()];
            for conflict in &report.conflicts {
                let at = |name: &String| names.iter().position(|known| known == name);
                let [a, b] = &conflict.concepts;
                if let (Some(i), Some(j)) = (at(a), at(b)) {
                    table[i][j] = figure(conflict);
                    table[j][i] = figure(conflict);
                }
            }
            (!report.conflicts.is_empty()).then_some(table)
        };
        let contact = report.stages.iter().max_by_key(|stage| stage.stage);
        let contact = contact.map(fusion::StageReport::contact);
        Note {
            phrases: report.concepts.iter().map(|c| c.phrase.clone()).collect(),
            conflicts: of_pairs(&|conflict| conflict.predicted),
            alike: of_pairs(&|conflict| conflict.alike),
            contact: contact.filter(|table| table.len() == names.len() && table.len() > 1),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mergers_are_found_by_their_names() {
        for merger in Merger::ALL {
            assert_eq!(merger.name().parse(), Ok(merger));
        }
        assert!("sum".parse::<Merger>().unwrap_err().contains("averaged, l-bfgs, exact"));
    }

    #[test]
    fn a_kept_model_is_told_by_what_it_is_made_of() {
        let note = |seconds, solver| Note {
            base: "b".into(),
            concepts: vec!["1".into(), "2".into()],
            settings: serde_json::json!({ "solver": solver, "rate": 2e-3f32 }),
            seconds,
            phrases: Vec::new(),
            conflicts: None,
            alike: None,
            contact: None,
        };
        let written = serde_json::to_string(&note(3.0, "exact")).unwrap();
        let read: Note = serde_json::from_str(&written).unwrap();
        assert!(read.is_of(&note(0.0, "exact")) && !read.is_of(&note(3.0, "average")));
        let others = Note { concepts: vec!["1".into()], ..note(3.0, "exact") };
        assert!(!read.is_of(&others));
    }
}
