//! `scheduler_config.json`: what a model says about its noise schedule, and what a sampler makes of
//! it.
//!
//! A sampler often runs on the config of another one. It then takes over the keys it knows and uses
//! its own defaults for the rest, as `XScheduler.from_config(pipe.scheduler.config)` does in
//! diffusers.
use crate::checkpoint::infinities;
use serde::{Deserialize, Deserializer};

/// What can be wrong with a scheduler config, or with what is asked of a sampler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    #[error("scheduler config is not what it should be: {0}")]
    Json(#[from] serde_json::Error),
    #[error("scheduler config: `{option}` is {found}, expected {expected}")]
    Config { option: &'static str, found: String, expected: String },
    #[error("{sampler} does not support {what}")]
    Unsupported { sampler: &'static str, what: String },
    #[error("{0}")]
    Request(String),
}

/// What the model's output means, x being the noised sample: x = signal * x0 + noise * eps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// eps itself.
    #[default]
    Epsilon,
    /// signal * eps - noise * x0.
    VPrediction,
    /// x0 itself.
    #[serde(alias = "original_sample")]
    Sample,
}

/// How the betas grow over the training steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    #[default]
    Linear,
    /// Linear in the square root; Stable Diffusion's.
    ScaledLinear,
    /// From the squared cosine of Nichol and Dhariwal 2021, betas capped at 0.999.
    SquaredcosCapV2,
}

/// How a run's timesteps are spread over the training steps (Lin et al. 2024, table 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepSpacing {
    Leading,
    Linspace,
    Trailing,
}

/// The level that a sigma-based sampler ends at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmas {
    #[default]
    Zero,
    SigmaMin,
}

/// The second-order update of DPM-Solver++.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    /// Also stands in for the solver types of DEIS and UniPC.
    #[default]
    #[serde(alias = "logrho", alias = "bh1", alias = "bh2")]
    Midpoint,
    Heun,
}

/// A `scheduler_config.json` as it stands: `None` is a key that is missing (or null). Keys that no
/// sampler here reads are ignored. See [`SchedulerConfig::for_sampler`] for the values in force.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SchedulerConfig {
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    pub num_train_timesteps: Option<usize>,
    pub beta_start: Option<f64>,
    pub beta_end: Option<f64>,
    pub beta_schedule: Option<BetaSchedule>,
    pub trained_betas: Option<Vec<f32>>,
    pub prediction_type: Option<PredictionType>,
    pub timestep_spacing: Option<TimestepSpacing>,
    pub steps_offset: Option<usize>,
    pub set_alpha_to_one: Option<bool>,
    pub skip_prk_steps: Option<bool>,
    pub clip_sample: Option<bool>,
    pub thresholding: Option<bool>,
    pub rescale_betas_zero_snr: Option<bool>,
    pub use_karras_sigmas: Option<bool>,
    pub use_exponential_sigmas: Option<bool>,
    pub use_beta_sigmas: Option<bool>,
    pub use_lu_lambdas: Option<bool>,
    pub use_flow_sigmas: Option<bool>,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub interpolation_type: Option<String>,
    pub timestep_type: Option<String>,
    pub final_sigmas_type: Option<FinalSigmas>,
    pub solver_order: Option<usize>,
    pub algorithm_type: Option<String>,
    pub solver_type: Option<SolverType>,
    pub lower_order_final: Option<bool>,
    pub euler_at_final: Option<bool>,
    #[serde(deserialize_with = "number_or_name", default)]
    pub lambda_min_clipped: Option<f32>,
    pub original_inference_steps: Option<usize>,
    pub timestep_scaling: Option<f32>,
}

impl SchedulerConfig {
    /// Reads the text of a `scheduler_config.json`. Python writes infinities as bare words
    /// (`-Infinity`, in the configs of DPM-Solver), which is not JSON but is understood here.
    ///
    /// # Errors
    /// Text that is no JSON object, or a key of the wrong type or with an unknown value, named with
    /// its place.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        Ok(serde_json::from_str(&infinities::quoted(text))?)
    }

    /// Applies what diffusers' Stable Diffusion pipelines do to every scheduler they are given:
    /// `steps_offset` becomes 1 and `clip_sample` false, whatever the file says. The second value
    /// tells what was changed, for the user to see.
    pub fn for_pipeline(mut self) -> (Self, Vec<String>) {
        let mut notes = Vec::new();
        if let Some(offset) = self.steps_offset.filter(|offset| *offset != 1) {
            notes.push(format!("scheduler config: steps_offset is {offset}; latent models use 1"));
        }
        if self.clip_sample == Some(true) {
            notes.push("scheduler config: clip_sample is true; latents are never clipped".into());
        }
        self.steps_offset = Some(1);
        self.clip_sample = Some(false);
        (self, notes)
    }
}

/// The values in force for one sampler; names as in `scheduler_config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    pub num_train_timesteps: usize,
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: BetaSchedule,
    pub trained_betas: Option<Vec<f32>>,
    pub prediction: PredictionType,
    pub spacing: TimestepSpacing,
    pub steps_offset: usize,
    pub set_alpha_to_one: bool,
    pub skip_prk_steps: bool,
    pub rescale_betas_zero_snr: bool,
    pub karras: bool,
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
    pub final_sigmas: FinalSigmas,
    pub solver_order: usize,
    pub solver_type: SolverType,
    pub lower_order_final: bool,
    pub euler_at_final: bool,
    pub lambda_min_clipped: f32,
    pub original_inference_steps: usize,
    pub timestep_scaling: f32,
}

/// A number, or the name of one that JSON cannot write.
fn number_or_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number, \"Infinity\" or \"-Infinity\"")]
    enum Number {
        Value(f32),
        Name(Infinite),
    }
    #[derive(Deserialize)]
    enum Infinite {
        Infinity,
        #[serde(rename = "-Infinity")]
        MinusInfinity,
    }
    Ok(Option::deserialize(deserializer)?.map(|number| match number {
        Number::Value(value) => value,
        Number::Name(Infinite::Infinity) => f32::INFINITY,
        Number::Name(Infinite::MinusInfinity) => f32::NEG_INFINITY,
    }))
}
