//! A survey's results: means over its pictures.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cast::ORDER;
use super::item::{ONE_PROMPT, TOGETHER};
use super::places::{path, record_path};
use super::record::{Record, hash_of};
use super::settings::FORMAT;
use super::{Error, Item, Result, Settings};
use crate::metrics::METRICS;
use crate::pipeline::recipe::ControlSource;

/// A mean and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// Over pictures.
    pub mean: f64,
    /// The deviation of single pictures over the root of their number; nobody knows it of one alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// Pictures that have this score.
    pub pictures: usize,
}

/// Scores of some pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// A concept, a kind of prompts, or a scene.
    pub name: String,
    /// How many.
    pub pictures: usize,
    /// By the names of their metrics.
    pub scores: BTreeMap<String, Mean>,
    /// The same by kinds of prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<Row>,
}

/// All results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`]
    pub mos_eval: u32,
    /// What each score says.
    pub meanings: BTreeMap<String, String>,
    /// One for each concept.
    pub concepts: Vec<Row>,
    /// All pictures of one concept.
    pub alone: Row,
    /// One for each scene, each concept in its region.
    pub scenes: Vec<Row>,
    /// All pictures of several concepts in their regions.
    pub together: Option<Row>,
    /// The same scenes from one prompt, without regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub one_prompt_scenes: Vec<Row>,
    /// All pictures of several concepts from one prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_prompt: Option<Row>,
    /// All that they depend on.
    pub settings: Settings,
}

/// An item's record, if it is there and belongs to the picture beside it.
pub(super) fn found(settings: &Settings, folder: &Path, item: &Item) -> Result<Option<Record>> {
    let (picture, record) = (path(folder, item), record_path(folder, item));
    let Some(found) = Record::read(&record).filter(|_| picture.exists()) else { return Ok(None) };
    if found.scoring != settings.scoring(item) {
        return Ok(None);
    }
    if hash_of(&picture)? != found.picture {
        let problem = "it is another picture than the one that was scored; run the part again";
        return Err(Error::file(&picture, problem));
    }
    Ok(Some(found))
}

impl Results {
    pub(super) fn of(settings: Settings, items: &[Item], records: &[Record]) -> Results {
        let all: Vec<(&Item, &Record)> = items.iter().zip(records).collect();
        let row = |name: &str, keep: &dyn Fn(&Item) -> bool| {
            let kept = all.iter().filter(|(item, _)| keep(item)).map(|(_, record)| *record);
            Row::of(name, &kept.collect::<Vec<_>>())
        };
        let kinds = |keep: &dyn Fn(&Item) -> bool| {
            let mut names: Vec<&str> = Vec::new();
            for (item, _) in all.iter().filter(|(item, _)| keep(item)) {
                if !names.contains(&item.kind.as_str()) {
                    names.push(&item.kind);
                }
            }
            names.iter().map(|kind| row(kind, &|item| keep(item) && item.kind == *kind)).collect()
        };
        let of_concept = |(index, concept): (usize, &super::ConceptSettings)| {
            let keep = |item: &Item| item.scene.is_none() && item.concepts == [index];
            Row { kinds: kinds(&keep), ..row(&concept.name, &keep) }
        };
        let of_scenes = |kind: &str| -> (Vec<Row>, Option<Row>) {
            let is = |item: &Item| item.scene.is_some() && item.kind == kind;
            let of_scene = |(index, scene): (usize, &super::SceneSettings)| {
                row(&scene.name, &|item| is(item) && item.scene == Some(index))
            };
            let scenes = settings.scenes.iter().enumerate().map(of_scene);
            let scenes: Vec<Row> = scenes.filter(|row| row.pictures > 0).collect();
            let all = (!scenes.is_empty()).then(|| row("all", &is));
            (scenes, all)
        };
        let concepts = settings.concepts.iter().enumerate().map(of_concept).collect();
        let (scenes, together) = of_scenes(TOGETHER);
        let (one_prompt_scenes, one_prompt) = of_scenes(ONE_PROMPT);
        let alone = |item: &Item| item.scene.is_none();
        let used = |name: &str| records.iter().any(|record| record.scores.contains_key(name));
        let meanings = METRICS
            .iter()
            .filter(|metric| used(metric.name()))
            .map(|metric| (metric.name().to_string(), metric.meaning().to_string()))
            .collect();
        Results {
            mos_eval: FORMAT,
            meanings,
            concepts,
            alone: Row { kinds: kinds(&alone), ..row("all", &alone) },
            scenes,
            together,
            one_prompt_scenes,
            one_prompt,
            settings,
        }
    }

    /// Scenes by how they were asked for, and all of them; only those of which there are pictures.
    pub(super) fn several(&self) -> impl Iterator<Item = (&'static str, Vec<&Row>)> {
        let ways = [
            ("each in its region", &self.scenes, &self.together),
            ("from one prompt without regions", &self.one_prompt_scenes, &self.one_prompt),
        ];
        ways.into_iter().filter_map(|(how, scenes, all)| {
            let all = all.as_ref()?;
            Some((how, scenes.iter().chain([all]).collect()))
        })
    }

    /// The table in Markdown: concepts alone, then several in one picture.
    pub fn table(&self) -> String {
        let mut rows: Vec<&Row> = self.concepts.iter().collect();
        rows.push(&self.alone);
        let mut text = String::from("# Evaluation\n\n");
        text += &format!("Model: `{}`, {}.\n\n", self.settings.model, self.settings.sampling());
        text += &markdown("concept", &rows);
        text += "\nBy what prompts ask:\n\n";
        text += &markdown("prompts", &self.alone.kinds.iter().collect::<Vec<_>>());
        for (how, rows) in self.several() {
            text += &format!("\nSeveral in one picture, {how}; {ORDER}:\n\n");
            text += &markdown("scene", &rows);
        }
        text += "\n";
        for metric in METRICS {
            if let Some(meaning) = self.meanings.get(metric.name()) {
                text += &format!("- {}: {meaning}\n", metric.name());
            }
        }
        text + "\nBehind ± stands the standard error of the mean.\n"
    }
}

impl Settings {
    /// How pictures were made, in a line.
    pub(super) fn sampling(&self) -> String {
        let [width, height] = self.size;
        format!(
            "{width}x{height}, {} steps of {}, guidance {}, {} of each prompt from seed {} on{}",
            self.steps,
            self.sampler,
            self.guidance,
            crate::numbers::counted(self.pictures as usize, "picture"),
            self.seed,
            self.steering()
        )
    }

    /// What steers the pictures of three, as it goes on the line's end.
    fn steering(&self) -> String {
        let control = |control: &ControlSource| {
            let ControlSource { network, image, make, weight, start, end, .. } = control;
            let mut told = match make {
                None => image.path.display().to_string(),
                Some(make) => format!("{make} of {}", image.path.display()),
            };
            told += &format!(" by {network}");
            if *weight != 1.0 {
                told += &format!(", weight {weight}");
            }
            if [*start, *end] != [0.0, 1.0] {
                told += &format!(", from {start} to {end} of the steps");
            }
            told
        };
        let all: Vec<String> = self.controls.iter().map(control).collect();
        match all.is_empty() {
            true => String::new(),
            false => format!("; three in their regions follow {}", all.join(" and ")),
        }
    }
}

/// The scores that any of these rows has, in the order of [`METRICS`].
pub(super) fn columns(rows: &[&Row]) -> Vec<&'static str> {
    let names = METRICS.iter().map(|metric| metric.name());
    names.filter(|name| rows.iter().any(|row| row.scores.contains_key(*name))).collect()
}

/// A score as tables show it.
pub(super) fn cell(row: &Row, name: &str) -> String {
    row.scores.get(name).map_or(String::new(), |score| match score.error {
        Some(error) => format!("{:.3} ± {error:.3}", score.mean),
        None => format!("{:.3}", score.mean),
    })
}

fn markdown(first: &str, rows: &[&Row]) -> String {
    let columns = columns(rows);
    let mut text = format!("| {first} | pictures | {} |\n", columns.join(" | "));
    text += &format!("|---|---:|{}\n", "---:|".repeat(columns.len()));
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|name| cell(row, name)).collect();
        text += &format!("| {} | {} | {} |\n", row.name, row.pictures, cells.join(" | "));
    }
    text
}

impl Row {
    fn of(name: &str, records: &[&Record]) -> Row {
        let mut scores = BTreeMap::new();
        for metric in METRICS {
            let values = records.iter().filter_map(|record| record.scores.get(metric.name()));
            let values: Vec<f64> = values.copied().collect();
            if !values.is_empty() {
                scores.insert(metric.name().to_string(), Mean::of(&values));
            }
        }
        Row { name: name.into(), pictures: records.len(), scores, kinds: Vec::new() }
    }
}

impl Mean {
    fn of(values: &[f64]) -> Mean {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count.max(1) as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let error = (count > 1).then(|| (squares / (count - 1) as f64 / count as f64).sqrt());
        Mean { mean, error, pictures: count }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{sample, sample_control};
    use super::*;

    #[test]
    fn what_steers_is_told() {
        assert!(sample().sampling().ends_with("from seed 5 on"), "{}", sample().sampling());
        let controls = vec![
            sample_control(),
            ControlSource {
                make: Some(crate::pipeline::recipe::Made::Canny),
                weight: 0.5,
                end: 0.6,
                ..sample_control()
            },
        ];
        let told = Settings { controls, ..sample() }.sampling();
        let wanted = "on; three in their regions follow sketch.png by t2i_adapter and canny of \
            sketch.png by t2i_adapter, weight 0.5, from 0 to 0.6 of the steps";
        assert!(told.ends_with(wanted), "{told}");
    }

    #[test]
    fn means_have_their_errors() {
        let mean = Mean::of(&[1.0, 2.0, 3.0, 6.0]);
        assert_eq!((mean.mean, mean.pictures), (3.0, 4));
        assert!((mean.error.unwrap() - (14.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(Mean::of(&[2.0]).error, None);
    }

    #[test]
    fn results_are_of_concepts_kinds_and_scenes() {
        let settings = sample();
        let items = settings.items();
        let records: Vec<Record> = items
            .iter()
            .enumerate()
            .map(|(i, item)| {
                let mut record = Record::new(String::new(), settings.scoring(item));
                record.scores.insert("text".into(), i as f64);
                if item.scene.is_some() {
                    record.scores.insert("placement".into(), 0.5);
                }
                record
            })
            .collect();
        let results = Results::of(settings, &items, &records);
        assert_eq!(results.concepts[0].scores["text"].mean, 1.5);
        assert_eq!(results.concepts[0].kinds[0].pictures, 4);
        assert_eq!(results.alone.pictures, 16);
        assert_eq!(results.together.as_ref().map(|row| row.pictures), Some(3));
        assert_eq!(results.scenes[2].scores["text"].mean, 18.0);
        let table = results.table();
        assert!(table.contains("| a+b+c | 1 | 18.000 | 0.500 |"), "{table}");
        assert!(!table.contains("dino") && table.contains("- placement: "), "{table}");
        assert!(results.one_prompt.is_none() && !table.contains("one prompt"), "{table}");
    }

    #[test]
    fn scenes_in_one_prompt_are_told_apart_from_those_in_regions() {
        let settings = Settings { one_prompt: 1, ..sample() };
        let items = settings.items();
        let scored = |item: &Item| {
            let mut record = Record::new(String::new(), settings.scoring(item));
            let right = if item.kind == ONE_PROMPT { 0.25 } else { 0.75 };
            record.scores.insert("placement".into(), right);
            record
        };
        let records: Vec<Record> = items.iter().map(scored).collect();
        let results = Results::of(settings, &items, &records);
        let right = |row: &Option<Row>| {
            row.as_ref().map(|row| (row.pictures, row.scores["placement"].mean))
        };
        assert_eq!(right(&results.together), Some((3, 0.75)));
        assert_eq!(right(&results.one_prompt), Some((3, 0.25)));
        assert_eq!(results.one_prompt_scenes[0].name, "a+b");
        let table = results.table();
        let (regions, one) = table.split_once("from one prompt without regions").unwrap();
        assert!(regions.contains("| a+b | 1 | 0.750 |") && one.contains("| a+b | 1 | 0.250 |"));
    }
}
