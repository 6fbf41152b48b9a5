//! How a fusion is done.

use serde::{Deserialize, Serialize};

use super::solve::Solver;
use crate::backend::Precision;
use crate::numbers::Range;

/// Settings of a fusion. The defaults record what a fused model is asked for in use, which the
/// published ones do not: see [`Settings::published`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How layers are solved for.
    pub solver: Solver,
    /// Prompts that the text encoder reads, with `{}` for a concept's words.
    pub prompts: Vec<String>,
    /// Prompts that are sampled from.
    pub sampled: Vec<String>,
    /// Sampling steps of DPM-Solver++.
    pub steps: usize,
    /// Guidance while sampling, of which both halves are recorded; 1 is none.
    #[serde(serialize_with = "short")]
    pub guidance: f32,
    /// Keys and values are fitted on all positions of the prompts up to the end mark, not on those
    /// of concept words and the mark alone.
    pub whole_prompts: bool,
    /// Height and width of the latents; none: what the model was trained at.
    pub size: Option<[usize; 2]>,
    /// Pictures that are sampled for each prompt.
    pub seeds: u64,
    /// The first picture's; those that follow count up.
    pub seed: u64,
    /// Ordinary prompts, whose answers should not change: every other one is solved with, the
    /// others measure.
    pub keep: Vec<String>,
    /// How many of each half are sampled from.
    pub keep_sampled: usize,
    /// Prompts with `{}` for a concept's words that are recorded from other seeds, to choose the
    /// ridge and to report with; none: both are done on what is solved with.
    pub held_out: Vec<String>,
    /// How the model's weights are held on the device.
    #[serde(with = "as_text")]
    pub precision: Precision,
    /// What follows the solver.
    pub distillation: Distillation,
    /// A word that two concepts have gets a number instead of being refused.
    pub rename: bool,
    /// Bytes of the device's memory to stay within: no part of the fusion, but of where it is done.
    #[serde(skip)]
    pub memory: Option<u64>,
}

const PROMPTS: [&str; 4] =
    ["photo of a {}", "{}", "a {} in the snow", "a drawing of a {} in a room"];
/// How many of them are published: for the text encoder, and to sample from.
const PUBLISHED_PROMPTS: [usize; 2] = [2, 1];
/// Places and words that the recorded prompts lack.
const HELD_OUT: [&str; 2] = ["a picture of a {} on the beach", "a {} in a city at night"];
/// How far their seeds are from the recorded ones'.
const HELD_OUT_SEEDS: u64 = 1_000_003;
const STEPS: usize = 10;
const PUBLISHED_STEPS: usize = 20;
/// Without guidance nothing is known of the empty prompt's half, and pictures with guidance are
/// farther from the concepts' own than those of averaged weights.
const GUIDANCE: f32 = 5.0;
const KEEP_SAMPLED: usize = 2;

/// Iterations of the published solver: for the text encoder and for keys and values, then for the
/// rest.
pub const PUBLISHED_ITERATIONS: [usize; 2] = [500, 50];

impl Default for Settings {
    fn default() -> Self {
        Settings {
            solver: Solver::default(),
            prompts: PROMPTS.map(String::from).to_vec(),
            sampled: PROMPTS.map(String::from).to_vec(),
            steps: STEPS,
            guidance: GUIDANCE,
            whole_prompts: true,
            size: None,
            seeds: 1,
            seed: 0,
            keep: ordinary_prompts(),
            keep_sampled: KEEP_SAMPLED,
            held_out: HELD_OUT.map(String::from).to_vec(),
            precision: Precision::default(),
            distillation: Distillation::default(),
            rename: false,
            memory: None,
        }
    }
}

impl Settings {
    /// What is usual for a solver: what was published for the published one, and nothing else
    /// besides for averages, mergers and LoRACLR.
    pub fn of(solver: Solver) -> Settings {
        let usual = match solver {
            Solver::Exact(_) => Settings::default(),
            Solver::Lbfgs(_) => Settings::published(),
            Solver::Average | Solver::Merge(_) | Solver::Loraclr(_) => {
                Settings { distillation: Distillation::NONE, ..Settings::default() }
            }
        };
        Settings { solver, ..usual }
    }

    /// What the method's own code records: "photo of a ..." in 20 steps without guidance, and of
    /// prompts the words and the end mark.
    pub fn published() -> Settings {
        let [read, sampled] = PUBLISHED_PROMPTS
            .map(|count| PROMPTS[..count].iter().map(|prompt| prompt.to_string()).collect());
        let (steps, distillation) = (PUBLISHED_STEPS, Distillation::NONE);
        Settings {
            prompts: read,
            sampled,
            steps,
            guidance: 1.0,
            whole_prompts: false,
            held_out: Vec::new(),
            distillation,
            ..Settings::default()
        }
    }
}

impl Settings {
    /// What no fusion can be done with is told before work.
    pub(super) fn check(&self) -> super::Result<()> {
        let refuse = |option: &str, problem: &str| Err(super::Error::option(option, problem));
        if let super::solve::Solver::Merge(merge) = self.solver
            && !(merge.density > 0.0 && merge.density <= 1.0)
        {
            return refuse("density", "it is above 0, 1 at most");
        }
        if let super::solve::Solver::Loraclr(loraclr) = self.solver
            && !(loraclr.margin >= 0.0 && loraclr.decay >= 0.0)
        {
            return refuse("margin", "it and the decay are 0 or more");
        }
        if self.steps == 0 {
            return refuse("steps", "0: at least one is sampled");
        }
        if self.seeds == 0 {
            return refuse("samples", "0: at least one picture of each prompt is sampled");
        }
        if self.prompts.is_empty() || self.sampled.is_empty() {
            return refuse("prompts", "there are none to record a concept with");
        }
        let lists = [&self.prompts, &self.sampled, &self.held_out];
        match lists.iter().flat_map(|list| list.iter()).find(|text| !text.contains("{}")) {
            Some(text) => refuse("prompts", &format!("\"{text}\" has no {{}} for the words")),
            None => Ok(()),
        }
    }

    /// The settings by which inputs are recorded that are kept aside.
    pub(super) fn aside(&self) -> Option<Settings> {
        (!self.held_out.is_empty()).then(|| Settings {
            prompts: self.held_out.clone(),
            sampled: self.held_out.clone(),
            seeds: 1,
            seed: self.seed.wrapping_add(HELD_OUT_SEEDS),
            ..self.clone()
        })
    }
}

/// What is written as its name.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T, D: Deserializer<'de>>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
    {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// The built-in ordinary prompts.
pub fn ordinary_prompts() -> Vec<String> {
    include_str!("ordinary_prompts.txt")
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(String::from)
        .collect()
}

/// The settings that statistics depend on, as their files carry them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub prompts: Vec<String>,
    pub sampled: Vec<String>,
    pub steps: usize,
    pub guidance: f32,
    pub whole_prompts: bool,
    pub size: Option<[usize; 2]>,
    pub seeds: u64,
    pub seed: u64,
    pub keep: Vec<String>,
    pub keep_sampled: usize,
    pub precision: String,
}

impl From<&Settings> for Recorded {
    fn from(settings: &Settings) -> Self {
        Recorded {
            prompts: settings.prompts.clone(),
            sampled: settings.sampled.clone(),
            steps: settings.steps,
            guidance: settings.guidance,
            whole_prompts: settings.whole_prompts,
            size: settings.size,
            seeds: settings.seeds,
            seed: settings.seed,
            keep: settings.keep.clone(),
            keep_sampled: settings.keep_sampled,
            precision: settings.precision.to_string(),
        }
    }
}

/// How the fused UNet is distilled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    /// Pictures of each prompt whose predictions are trained; 0: the layers' solutions stay as they
    /// are.
    pub pictures: u64,
    /// Learning rate of the first updates; it falls to 0 along a cosine.
    #[serde(serialize_with = "short")]
    pub rate: f32,
    /// Predictions that one update learns from.
    pub batch: usize,
    /// Rank of the updates that learn; none: 16 for each concept and 4 more, 64 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Pictures of each prompt of each scene, two and three concepts in regions, whose predictions
    /// are trained too; 0: none.
    #[serde(default)]
    pub scenes: u64,
    /// How strong a concept's update of the UNet is in its region of a scene, times its own: in a
    /// small part of a picture it shows less.
    #[serde(default = "as_it_is", serialize_with = "short")]
    pub scene_strength: f32,
    /// Of so many pictures of each prompt of each scene, what is predicted for the prompts in
    /// regions is also learnt with one prompt for the whole picture that names all; 0: none.
    #[serde(default, skip_serializing_if = "is_none")]
    pub one_prompt: u64,
}

/// Left out where there is none, as in models of a time without.
fn is_none(count: &u64) -> bool {
    *count == 0
}

fn as_it_is() -> f32 {
    1.0
}

/// By the digits that say it, also where numbers are held as f64: 1.6, not 1.600000023841858.
fn short<S: serde::Serializer>(value: &f32, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(value.to_string().parse().unwrap_or(f64::from(*value)))
}

impl Default for Distillation {
    fn default() -> Self {
        Distillation {
            pictures: 4,
            rate: 2e-3,
            batch: 8,
            rank: None,
            scenes: 3,
            scene_strength: 1.6,
            one_prompt: 0,
        }
    }
}

impl Distillation {
    /// What [`Distillation::pictures`] and [`Distillation::scenes`] may be.
    pub const PICTURES: Range = Range::whole(0, 1000);
    /// What [`Distillation::rate`] may be.
    pub const RATE: Range = Range::POSITIVE_SHARE;
    /// What [`Distillation::rank`] may be: above it, updates are as large as the layers.
    pub const RANK: Range = Range::whole(1, 1024);
    /// What [`Distillation::scene_strength`] may be.
    pub const STRENGTH: Range = Range::POSITIVE;

    /// None at all.
    pub const NONE: Distillation = Distillation {
        pictures: 0,
        rate: 0.0,
        batch: 1,
        rank: None,
        scenes: 0,
        scene_strength: 1.0,
        one_prompt: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `fusion.json` keeps them, and as `--to` reads them again.
    #[test]
    fn settings_come_back_as_they_were_noted() {
        let distillation = Distillation {
            pictures: 5,
            rate: 3e-3,
            rank: Some(24),
            scenes: 2,
            scene_strength: 1.3,
            one_prompt: 2,
            ..Distillation::default()
        };
        let settings = Settings { distillation, guidance: 7.3, ..Settings::default() };
        let noted = serde_json::to_value(&settings).unwrap();
        let expected = serde_json::json!({
            "pictures": 5, "rate": 0.003, "batch": 8, "rank": 24, "scenes": 2,
            "scene_strength": 1.3, "one_prompt": 2,
        });
        assert_eq!((&noted["distillation"], &noted["guidance"]), (&expected, &7.3.into()));
        assert_eq!(serde_json::from_value::<Settings>(noted.clone()).unwrap(), settings);
        for value in [0.1f32, 1.6, 2e-3, 1e-9, 123.456, f32::MIN_POSITIVE] {
            let one = Distillation { rate: value, ..distillation };
            let back = serde_json::from_value::<Distillation>(serde_json::to_value(one).unwrap());
            assert_eq!(back.unwrap().rate, value);
        }
        // A model of a time without scenes was made without, by concepts as strong as they are.
        let mut old = noted;
        for key in ["rank", "scenes", "scene_strength", "one_prompt"] {
            old["distillation"].as_object_mut().unwrap().remove(key);
        }
        let old = serde_json::from_value::<Settings>(old).unwrap().distillation;
        assert_eq!((old.rank, old.scenes, old.scene_strength), (None, 0, 1.0));
        assert_eq!(old.one_prompt, 0);
        assert!(serde_json::to_value(old).unwrap().get("one_prompt").is_none());
    }
}
