//! How a fusion is done.

use serde::{Deserialize, Serialize};

use super::solve::Solver;
use crate::graph::Precision;

/// Settings of a fusion; the defaults are the published ones but for the solver.
#[derive(Clone, Debug)]
pub struct Settings {
    pub solver: Solver,
    /// Prompts that the text encoder reads, with `{}` for a concept's words.
    pub prompts: Vec<String>,
    /// Prompts that are sampled from.
    pub sampled: Vec<String>,
    /// Sampling steps of DPM-Solver++, without guidance.
    pub steps: usize,
    /// Height and width of the latents; none: what the model was trained at.
    pub size: Option<[usize; 2]>,
    /// Pictures that are sampled for each prompt.
    pub seeds: u64,
    pub seed: u64,
    /// Ordinary prompts, whose answers should not change: every other one is solved with, the others measure.
    pub keep: Vec<String>,
    /// How many of each half are sampled from.
    pub keep_sampled: usize,
    pub precision: Precision,
    /// A word that two concepts have gets a number instead of being refused.
    pub rename: bool,
}

/// The published settings of sampling and prompts.
const PROMPTS: [&str; 2] = ["photo of a {}", "{}"];
const SAMPLED: [&str; 1] = ["photo of a {}"];
const STEPS: usize = 20;
const KEEP_SAMPLED: usize = 2;

/// Iterations of the published solver: for the text encoder and for keys and values, then for the rest.
pub const PUBLISHED_ITERATIONS: [usize; 2] = [500, 50];

impl Default for Settings {
    fn default() -> Self {
        Settings {
            solver: Solver::default(),
            prompts: PROMPTS.map(String::from).to_vec(),
            sampled: SAMPLED.map(String::from).to_vec(),
            steps: STEPS,
            size: None,
            seeds: 1,
            seed: 0,
            keep: ordinary_prompts(),
            keep_sampled: KEEP_SAMPLED,
            precision: Precision::default(),
            rename: false,
        }
    }
}

/// The built-in ordinary prompts.
pub fn ordinary_prompts() -> Vec<String> {
    include_str!("ordinary_prompts.txt").lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect()
}

/// The settings that statistics depend on, as their files carry them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Recorded {
    pub prompts: Vec<String>,
    pub sampled: Vec<String>,
    pub steps: usize,
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
            size: settings.size,
            seeds: settings.seeds,
            seed: settings.seed,
            keep: settings.keep.clone(),
            keep_sampled: settings.keep_sampled,
            precision: settings.precision.to_string(),
        }
    }
}
