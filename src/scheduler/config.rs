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
    /// Text that is no JSON of such keys.
    #[error("scheduler config is not what it should be: {0}")]
    Json(#[from] serde_json::Error),
    /// A value that makes no schedule.
    #[error("scheduler config: `{option}` is {found}, expected {expected}")]
    Config {
        /// The key.
        option: &'static str,
        /// What was found.
        found: String,
        /// What is right in its place.
        expected: String,
    },
    /// Something that the sampler cannot do.
    #[error("{sampler} does not support {what}")]
    Unsupported {
        /// The sampler.
        sampler: &'static str,
        /// What it was asked for.
        what: String,
    },
    /// Steps, strength or options that make no run.
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
    /// In a straight line.
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
    /// Every n-th step from 0 on.
    Leading,
    /// Evenly from the first to the last, rounded.
    Linspace,
    /// Every n-th step back from the last one.
    Trailing,
    /// Evenly from the last one, the end left out, not rounded; web UIs' alone.
    #[serde(skip)]
    SgmUniform,
    /// As trailing, rounded up; web UIs' alone.
    #[serde(skip)]
    Simple,
}

/// How a run's noise levels are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SigmaSpacing {
    /// They are those of its timesteps.
    #[default]
    Timesteps,
    /// Evenly in sigma^(1/7) (Karras et al. 2022, eq. 5).
    Karras,
    /// Evenly in their logarithm.
    Exponential,
    /// By the quantiles of a beta distribution (Lee et al. 2024).
    Beta,
}

/// The level that a sigma-based sampler ends at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinalSigmas {
    /// No noise at all.
    #[default]
    Zero,
    /// The least level of the schedule.
    SigmaMin,
}

/// The second-order update of DPM-Solver++, or B(h) of UniPC; each takes its usual one for the
/// other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SolverType {
    /// Also stands in for the solver type of DEIS.
    #[default]
    #[serde(alias = "logrho")]
    Midpoint,
    /// Heun's two evaluations.
    Heun,
    /// UniPC's with B(h) = h.
    Bh1,
    /// UniPC's with B(h) = exp(h) - 1.
    Bh2,
}

/// A `scheduler_config.json` as it stands: `None` is a key that is missing (or null). Keys that no
/// sampler here reads are ignored. See [`SchedulerConfig::for_sampler`] for the values in force.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SchedulerConfig {
    /// The scheduler's class in diffusers.
    #[serde(rename = "_class_name")]
    pub class_name: Option<String>,
    /// Steps that the model was trained at; 1000 usually.
    pub num_train_timesteps: Option<usize>,
    /// Variance that the first training step adds.
    pub beta_start: Option<f64>,
    /// Variance that the last one adds.
    pub beta_end: Option<f64>,
    /// How betas grow between the two.
    pub beta_schedule: Option<BetaSchedule>,
    /// The betas themselves, in place of those three.
    pub trained_betas: Option<Vec<f32>>,
    /// What the model predicts.
    pub prediction_type: Option<PredictionType>,
    /// How a run's timesteps are spread.
    pub timestep_spacing: Option<TimestepSpacing>,
    /// Added to every timestep.
    pub steps_offset: Option<usize>,
    /// The last step ends at no noise, instead of at the first training step's.
    pub set_alpha_to_one: Option<bool>,
    /// PNDM without its Runge-Kutta steps: the usual form.
    pub skip_prk_steps: Option<bool>,
    /// Predicted samples are clipped: a pixel model's.
    pub clip_sample: Option<bool>,
    /// Predicted samples are clipped by their quantile: a pixel model's.
    pub thresholding: Option<bool>,
    /// The last training step is pure noise (Lin et al. 2024).
    pub rescale_betas_zero_snr: Option<bool>,
    /// Karras's noise levels.
    pub use_karras_sigmas: Option<bool>,
    /// Levels evenly spaced in their logarithm.
    pub use_exponential_sigmas: Option<bool>,
    /// Levels of a beta distribution.
    pub use_beta_sigmas: Option<bool>,
    /// Lu's spacing of DPM-Solver, which no sampler here has.
    pub use_lu_lambdas: Option<bool>,
    /// Those of flow matching, which no sampler here has.
    pub use_flow_sigmas: Option<bool>,
    /// Least level of Karras's; none: the schedule's.
    pub sigma_min: Option<f64>,
    /// Greatest level of Karras's; none: the schedule's.
    pub sigma_max: Option<f64>,
    /// How levels between training steps are found: `linear` alone is known.
    pub interpolation_type: Option<String>,
    /// `discrete` alone is known.
    pub timestep_type: Option<String>,
    /// Where a sigma-based sampler ends.
    pub final_sigmas_type: Option<FinalSigmas>,
    /// Steps that DPM-Solver looks back at, this one included: 1 to 3.
    pub solver_order: Option<usize>,
    /// Of the DPM-Solver family.
    pub algorithm_type: Option<String>,
    /// The second-order update.
    pub solver_type: Option<SolverType>,
    /// UniPC's form that predicts the sample, the only one here.
    pub predict_x0: Option<bool>,
    /// Steps of UniPC that are not corrected.
    pub disable_corrector: Option<Vec<usize>>,
    /// The last step is of first order.
    pub lower_order_final: Option<bool>,
    /// The last step is Euler's.
    pub euler_at_final: Option<bool>,
    /// Half the logarithm of the signal-to-noise ratio below which steps are left out.
    #[serde(deserialize_with = "number_or_name", default)]
    pub lambda_min_clipped: Option<f32>,
    /// Timesteps that an LCM was distilled on, from which a run takes its own.
    pub original_inference_steps: Option<usize>,
    /// LCM's factor of the timestep in its boundary conditions.
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
    /// Steps that the model was trained at.
    pub num_train_timesteps: usize,
    /// Variance that the first training step adds.
    pub beta_start: f64,
    /// Variance that the last one adds.
    pub beta_end: f64,
    /// How betas grow between the two.
    pub beta_schedule: BetaSchedule,
    /// The betas themselves, in place of those three.
    pub trained_betas: Option<Vec<f32>>,
    /// What the model predicts.
    pub prediction: PredictionType,
    /// How a run's timesteps are spread.
    pub spacing: TimestepSpacing,
    /// Added to every timestep.
    pub steps_offset: usize,
    /// The last step ends at no noise, instead of at the first training step's.
    pub set_alpha_to_one: bool,
    /// PNDM without its Runge-Kutta steps.
    pub skip_prk_steps: bool,
    /// The last training step is pure noise (Lin et al. 2024).
    pub rescale_betas_zero_snr: bool,
    /// How a run's noise levels are found.
    pub sigmas: SigmaSpacing,
    /// Least of them; none: the schedule's.
    pub sigma_min: Option<f64>,
    /// Greatest of them; none: the schedule's.
    pub sigma_max: Option<f64>,
    /// Where a sigma-based sampler ends.
    pub final_sigmas: FinalSigmas,
    /// Steps that DPM-Solver looks back at, this one included: 1 to 3.
    pub solver_order: usize,
    /// The second-order update.
    pub solver_type: SolverType,
    /// Steps of UniPC that are not corrected.
    pub disable_corrector: Vec<usize>,
    /// The last step is of first order.
    pub lower_order_final: bool,
    /// The last step is Euler's.
    pub euler_at_final: bool,
    /// Half the logarithm of the signal-to-noise ratio below which steps are left out.
    pub lambda_min_clipped: f32,
    /// Timesteps that an LCM was distilled on, from which a run takes its own.
    pub original_inference_steps: usize,
    /// LCM's factor of the timestep in its boundary conditions.
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
