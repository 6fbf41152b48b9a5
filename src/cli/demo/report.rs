//! The demo's figures, as Markdown and JSON.
use mixofshow::counted;
use std::fmt::Write;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use crate::cli::{Result, files};

pub const FILE: &str = "report.md";

#[derive(Serialize)]
pub struct Report {
    pub adapter: String,
    /// Updates of each concept.
    pub steps: usize,
    /// Concepts that were not there from an earlier run.
    pub learnt_now: usize,
    pub seeds: u64,
    /// Of teaching, fusing, and making and scoring pictures.
    pub seconds: [f64; 3],
    pub concepts: Vec<ConceptScores>,
    /// Who says who stands where: `identity`, the tower that ships for it, or `clip`, the model's.
    pub judge: &'static str,
    pub scenes: Vec<SceneScores>,
}

/// One concept: image alignment with the pictures that it was trained from, by the way that it was
/// asked for.
#[derive(Serialize)]
pub struct ConceptScores {
    pub name: &'static str,
    pub scores: Vec<(String, f64)>,
}

/// Pictures with everybody: in how many places there is who should be there.
#[derive(Serialize)]
pub struct SceneScores {
    pub way: String,
    pub right: usize,
    pub of: usize,
}

impl Report {
    /// Writes `report.md` and `report.json` into a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (name, text) in [(FILE, self.markdown()), ("report.json", json)] {
            files::write(&folder.join(name), text.as_bytes())?;
        }
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = String::from("# Teach, fuse, place\n\n![All pictures](sheet.png)\n\n");
        let [taught, fused, shown] = self.seconds;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "On {}: {} of {} taught in {taught:.0} s ({} each), fused in \
                {fused:.0} s, pictures made and scored in {shown:.0} s.\n",
            self.adapter,
            self.learnt_now,
            counted(self.concepts.len(), "concept"),
            counted(self.steps, "update")
        );
        let _ = writeln!(
            text,
            "## Each concept alone\n\nImage alignment with the pictures that it was trained from:\n"
        );
        let header = std::iter::once("concept".to_string());
        let ways = self
            .concepts
            .first()
            .map_or(&[][..], |concept| &concept.scores)
            .iter()
            .map(|(way, _)| way.clone());
        let rows = self.concepts.iter().map(|concept| {
            let scores = concept.scores.iter().map(|(_, score)| format!("{score:.3}"));
            std::iter::once(concept.name.to_string()).chain(scores).collect()
        });
        let _ = writeln!(text, "{}\n", table(header.chain(ways).collect(), rows.collect()));
        let _ = writeln!(
            text,
            "## Several in one picture\n\nPlaces that look most like who should stand there, of \
                {}, as {} sees them:\n",
            counted(self.seeds, "seed"),
            match self.judge {
                "identity" => "the tower that tells who is who",
                _ => "the model's own tower",
            }
        );
        let rows = self.scenes.iter().map(|scene| {
            let share = 100.0 * scene.right as f64 / scene.of.max(1) as f64;
            vec![
                scene.way.clone(),
                format!("{} of {}", scene.right, scene.of),
                format!("{share:.0} %"),
            ]
        });
        let _ = writeln!(
            text,
            "{}",
            table(["way", "right", "share"].map(String::from).to_vec(), rows.collect())
        );
        text
    }
}

fn table(header: Vec<String>, rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
