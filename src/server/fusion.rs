//! A model that is to be fused: from concepts that are listed to a model among the models.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::fusion::solve::{Exact, Solver};
use crate::fusion::{DistillationOptions, Settings};

use super::fields::Fields;
use super::limits::Limits;
use super::order::Wanted;
use super::problem::Problem;
use super::shelf::{Listed, Shelf};

/// The most concepts of a fusion.
const MOST: usize = 64;
/// The most pictures of each prompt.
const MOST_PICTURES: usize = 1000;

/// A model to be fused.
pub struct Fusion {
    pub model: Listed,
    /// Of the fused model.
    pub name: String,
    pub out: PathBuf,
    /// With the prompts that stand for those without words.
    pub concepts: Vec<(Wanted, Option<String>)>,
    pub settings: Settings,
    /// Width and height in pixels.
    pub size: Option<[usize; 2]>,
}

impl Fusion {
    pub fn read(shelf: &Shelf, limits: &Limits, mut fields: Fields) -> Result<Fusion, Problem> {
        let model = shelf.model_or_chosen(fields.word("model")?)?;
        let name = fields.word("name")?;
        let name = name.ok_or_else(|| Problem::value("name", "missing", "a new model's name"))?;
        let out = shelf.new_model(&name)?;
        let solver = match fields.word("solver")?.as_deref() {
            None | Some("exact") => Solver::Exact(Exact::default()),
            Some("average") => Solver::Average,
            Some(_) => {
                return Err(Problem::value("solver", "another word", "exact or average"));
            }
        };
        let mut settings = Settings::of(solver);
        settings.steps = fields.count("steps")?.unwrap_or(settings.steps);
        settings.seeds = fields.count("samples")?.map_or(settings.seeds, |n| n as u64);
        settings.seed = fields.seed("seed")?.unwrap_or(settings.seed);
        let number = |count: Option<usize>| count.map(|count| count as u64);
        let asked = DistillationOptions {
            pictures: number(fields.count("distillation")?),
            rate: fields.single("distillation_rate")?,
            rank: fields.count("distillation_rank")?,
            scenes: number(fields.count("scenes")?),
            scene_strength: fields.single("scene_strength")?,
            one_prompt: number(fields.count("one_prompt")?),
        };
        let distilled = asked.over(settings.distillation, &|field| field.to_string());
        settings.distillation =
            distilled.map_err(|unfit| Problem::asked(unfit.words).of(unfit.option))?;
        for (field, found, least, most) in [
            ("steps", settings.steps, 1, limits.steps),
            ("samples", settings.seeds as usize, 1, MOST_PICTURES),
        ] {
            if !(least..=most).contains(&found) {
                return Err(Problem::value(field, found, &format!("{least} to {most}")));
            }
        }
        let size = match [fields.count("width")?, fields.count("height")?] {
            [Some(width), Some(height)] => Some([width, height]),
            [None, None] => None,
            _ => return Err(Problem::asked("width and height are given both or neither")),
        };
        if let Some([width, height]) = size {
            limits.check_size(width, height)?;
        }
        let mut concepts = Vec::new();
        for value in fields.list("concepts")? {
            let (wanted, prompt) = concept(shelf, value)?;
            let same = |(other, _): &(Wanted, _)| other.listed == wanted.listed;
            if concepts.iter().any(same) {
                let found = format!("`{}` twice", wanted.listed.name);
                return Err(Problem::value("concepts", found, "each of them once"));
            }
            concepts.push((wanted, prompt));
        }
        if !(1..=MOST).contains(&concepts.len()) {
            let found = format!("{} concepts", concepts.len());
            return Err(Problem::value("concepts", found, &format!("1 to {MOST}")));
        }
        fields.none_left("a job that fuses")?;
        Ok(Fusion { model, name, out, concepts, settings, size })
    }

    /// What lists of jobs tell of it.
    pub fn brief(&self) -> Value {
        let names = self.concepts.iter().map(|(wanted, _)| wanted.listed.name.as_str());
        json!({
            "model": self.model.name,
            "name": self.name,
            "concepts": names.collect::<Vec<_>>(),
        })
    }
}

/// A name, or an object with a name, scales, and the prompt that stands for one without words.
fn concept(shelf: &Shelf, value: Value) -> Result<(Wanted, Option<String>), Problem> {
    let mut fields = match value {
        Value::String(name) => Fields::of("concepts", json!({ "name": name }))?,
        other => Fields::of("concepts", other)?,
    };
    let prompt = fields.word("prompt")?;
    Ok((Wanted::read(shelf, fields)?, prompt))
}
