//! What a run came to: for people in one line, for machines as JSON.
use std::path::PathBuf;
use std::time::Duration;

use mixofshow::backend::Rounding;
use mixofshow::counted;
use mixofshow::pipeline::Generated;
use mixofshow::pipeline::recipe::Recipe;
use serde::Serialize;
use serde_json::Value;

use crate::cli::units;

#[derive(Serialize)]
pub struct Report {
    pictures: Vec<Written>,
    width: usize,
    height: usize,
    steps: usize,
    sampler: String,
    model: Option<String>,
    model_hash: Option<String>,
    adapter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rounding: Option<Rounding>,
    /// All settings, as the first picture's file has them.
    settings: Option<Value>,
    warnings: Vec<String>,
    /// Wall time.
    stages: Vec<Stage>,
    seconds: f64,
    /// Bytes of device memory: the most at once, and what was planned.
    peak_device_bytes: u64,
    planned_bytes: Planned,
}

#[derive(Serialize)]
struct Written {
    path: PathBuf,
    seed: u64,
}

#[derive(Serialize)]
struct Stage {
    name: &'static str,
    seconds: f64,
}

#[derive(Serialize)]
struct Planned {
    weights: u64,
    sampling: u64,
    decoding: u64,
}

impl Report {
    pub fn new(
        recipe: &Recipe,
        generated: &Generated,
        paths: &[PathBuf],
        [loading, total]: [Duration; 2],
        warnings: Vec<String>,
    ) -> Self {
        let told = paths.first().map(|path| recipe.beside(path));
        let told = told.as_ref().unwrap_or(recipe);
        let pictures =
            paths.iter().cloned().zip(&generated.seeds).map(|(path, &seed)| Written { path, seed });
        let stages = std::iter::once(("load", loading)).chain(generated.stages.iter().copied());
        let stages = stages.map(|(name, time)| Stage { name, seconds: time.as_secs_f64() });
        Self {
            pictures: pictures.collect(),
            width: generated.width,
            height: generated.height,
            steps: recipe.request.steps,
            sampler: generated.sampler.to_string(),
            model: recipe.model.clone(),
            model_hash: recipe.model_hash.clone(),
            adapter: recipe.adapter.clone(),
            rounding: recipe.rounding,
            settings: told.parameters(generated, 0).mos,
            warnings,
            stages: stages.collect(),
            seconds: total.as_secs_f64(),
            peak_device_bytes: generated.peak_device_bytes,
            planned_bytes: Planned {
                weights: generated.planned.weights,
                sampling: generated.planned.sampling,
                decoding: generated.planned.decoding,
            },
        }
    }

    /// `512x512, seed 42, pndm, 25 steps` and, in the next line, where the time and the memory
    /// went.
    pub fn closing_lines(&self) -> String {
        let seeds = match self.pictures.as_slice() {
            [one] => format!("seed {}", one.seed),
            [first, .., last] => format!("seeds {} to {}", first.seed, last.seed),
            [] => "no pictures".to_string(),
        };
        let seconds = |s: f64| units::duration(Duration::from_secs_f64(s));
        let stages: Vec<String> = self
            .stages
            .iter()
            .map(|stage| format!("{} {}", stage.name, seconds(stage.seconds)))
            .collect();
        let (width, height, sampler, steps) = (self.width, self.height, &self.sampler, self.steps);
        let (total, memory) = (seconds(self.seconds), units::bytes(self.peak_device_bytes));
        format!(
            "{width}x{height}, {seeds}, {sampler}, {}\n{}: {total} in all; at most \
                {memory} of device memory",
            counted(steps, "step"),
            stages.join(", "),
        )
    }
}
