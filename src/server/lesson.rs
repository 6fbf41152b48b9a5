//! A concept that is to be taught: from a folder of pictures that is listed to a file among the
//! concepts.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::training::Begin;
use crate::training::config::{Options, Settings};

use super::fields::Fields;
use super::limits::Limits;
use super::problem::{Problem, words};
use super::shelf::{Listed, Shelf};

/// Settings that name no file: those that requests may give.
const KEYS: &[&str] = &[
    "kind",
    "method",
    "words",
    "class_word",
    "initializers",
    "caption",
    "templates",
    "template_sentences",
    "shuffle_tags",
    "keep_tags",
    "size",
    "crop",
    "scale_min",
    "scale_max",
    "variants",
    "clip_skip",
    "text_layers",
    "unet_layers",
    "text_rank",
    "unet_rank",
    "alpha",
    "steps",
    "batch",
    "accumulate",
    "words_lr",
    "text_lr",
    "unet_lr",
    "decay",
    "weight_decay",
    "lora_weight_decay",
    "lora_dropout",
    "rank_dropout",
    "words_first",
    "beta1",
    "beta2",
    "norm_stop",
    "noise_offset",
    "min_snr",
    "mask_loss",
    "unmasked_weight",
    "attention_weight",
    "full_identity",
    "prior_pictures",
    "class_prompt",
    "prior_weight",
    "prior_target",
    "prior_steps",
    "seed",
    "checkpointing",
    "save_every",
    "sheet_every",
    "prompts",
    "sheet_scales",
    "sheet_steps",
    "sheet_guidance",
];
/// The most pictures of a batch, and batches of an update.
const MOST_AT_ONCE: usize = 32;
/// The most prompts and scales of a sheet.
const MOST_SHOWN: usize = 16;

/// A concept to be taught.
pub struct Lesson {
    pub model: Listed,
    /// Of the concept.
    pub name: String,
    pub settings: Box<Settings>,
    pub begin: Begin,
}

impl Lesson {
    pub fn read(shelf: &Shelf, limits: &Limits, mut fields: Fields) -> Result<Lesson, Problem> {
        let model = shelf.model_or_chosen(fields.word("model")?)?;
        let missing = |name: &str, expected: &str| Problem::value(name, "missing", expected);
        let pictures = fields.word("pictures")?;
        let pictures = pictures.ok_or_else(|| missing("pictures", "a folder of pictures"))?;
        let pictures = shelf.album(&pictures)?;
        let name = fields.word("name")?.unwrap_or_else(|| pictures.name.clone());
        let output = shelf.new_concept(&name)?;
        let begin = match fields.flag("resume")? {
            Some(true) => Begin::Resume,
            _ => Begin::New,
        };
        let mut given = Map::new();
        for key in KEYS {
            // That of the job is another.
            let field = if *key == "kind" { "concept_kind" } else { key };
            given.extend(fields.value(field).map(|value| (key.to_string(), value)));
        }
        fields.none_left("a job that teaches")?;
        let text = |path: Option<PathBuf>| {
            let path = path.unwrap_or_default();
            path.to_str().map(Value::from).ok_or_else(|| Problem::own("a path is no UTF-8"))
        };
        given.insert("pictures".into(), text(pictures.path)?);
        given.insert("output".into(), text(Some(output))?);
        given.insert("model".into(), model.given().into());
        given.insert("name".into(), name.clone().into());
        let asked = |error: &dyn std::error::Error| Problem::asked(words(error));
        let options = Options::of_json(Path::new("settings"), given.into());
        let settings = Settings::new(options.map_err(|e| asked(&e))?).map_err(|e| asked(&e))?;
        check(&settings, limits)?;
        Ok(Lesson { model, name, settings: Box::new(settings), begin })
    }

    /// What lists of jobs tell of it.
    pub fn brief(&self) -> Value {
        json!({
            "model": self.model.name,
            "name": self.name,
            "words": self.settings.words,
            "steps": self.settings.steps,
            "seed": self.settings.seed,
        })
    }
}

/// Whether so much may be asked for.
fn check(settings: &Settings, limits: &Limits) -> Result<(), Problem> {
    let shown = settings.prompts.len().max(settings.sheet_scales.len());
    for (name, found, most) in [
        ("steps", settings.steps, limits.updates),
        ("batch", settings.batch, MOST_AT_ONCE),
        ("accumulate", settings.accumulate, MOST_AT_ONCE),
        ("prior_pictures", settings.prior_pictures, limits.updates),
        ("prior_steps", settings.prior_steps, limits.steps),
        ("sheet_steps", settings.sheet_steps, limits.steps),
        ("prompts", shown, MOST_SHOWN),
    ] {
        if found > most {
            return Err(Problem::value(name, found, &format!("{most} at most")));
        }
    }
    match settings.size {
        Some([width, height]) => limits.check_size(width, height),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A setting that names a file is none that requests give.
    #[test]
    fn no_setting_names_a_file() {
        let files = ["output", "pictures", "captions", "masks", "model", "prior_folder", "folders"];
        assert!(files.iter().all(|key| !KEYS.contains(key)));
        let others = Options::KEYS.iter().filter(|key| !KEYS.contains(key));
        let rest: Vec<&&str> = others.filter(|key| !files.contains(key)).collect();
        assert_eq!(rest, [&"name", &"precision"]);
    }
}
