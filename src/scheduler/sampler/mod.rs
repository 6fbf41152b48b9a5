//! Samplers, planned up front.
//!
//! Every sampler here is linear in the sample, in what it remembers, in the model's output and in
//! fresh noise. So a whole run is a list of [`SamplingStep`]s, each with the timestep to call the
//! model with and a small matrix that updates the state; one kernel serves them all. Coefficients
//! agree with diffusers' schedulers, whose rules for timesteps are followed too.
mod ddim;
mod descriptor;
mod dpm_solver;
mod dpmpp_3m_sde;
mod dpmpp_sde;
mod euler;
mod heun;
mod kind;
mod lcm;
mod linear;
mod pndm;
mod prediction;
mod tcd;
#[cfg(test)]
mod tests;
mod unipc;

pub use kind::SamplerKind;
pub use linear::{INPUTS, Matrix, NOISE_COLUMN, OUTPUT_COLUMN, SLOTS};

use super::config::{ScheduleError, SchedulerConfig, Settings};
use super::schedule::{NoiseLevel, NoiseSchedule};
use super::spacing::Schedule;
use crate::numbers::counted;
use linear::Combination;

/// What a user can ask of a sampler.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// Sampling steps. The model is called once a step, but twice by Heun (except at the last step)
    /// and once more by PNDM.
    pub steps: usize,
    /// How steps are spread over the noise; none: the scheduler config decides.
    pub schedule: Option<Schedule>,
    /// The share of fresh noise, 0 (none) to 1; none: the sampler's usual one. DDIM has none
    /// usually, and as much as DDPM at 1.
    pub eta: Option<f64>,
    /// Image to image: start inside the schedule and run only the last `strength` (0 to 1) of the
    /// steps.
    pub strength: Option<f64>,
}

impl PlanOptions {
    /// `steps` sampling steps from pure noise, all else at rest.
    pub fn new(steps: usize) -> Self {
        Self { steps, schedule: None, eta: None, strength: None }
    }
}

/// One call of the model and what follows it.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingStep {
    /// The timestep to give to the model, 0 to `num_train_timesteps` - 1, fractional for some
    /// samplers.
    pub timestep: f32,
    /// The model's input is `input_scale * x`, x being slot 0 of the state.
    pub input_scale: f32,
    /// New value of every slot from the old slots, the (guided) model output and the noise, in this
    /// order of columns. A slot whose row is all zeros isn't used after this step.
    pub matrix: Matrix,
    /// What the step takes the finished sample for: so much of slot 0 of the state, and so much of
    /// the model's output.
    pub original: [f32; 2],
    /// Whether to draw noise for this step. It must be drawn even where its coefficient is zero, so
    /// that a generator stays in step with diffusers.
    pub needs_noise: bool,
    /// The level of the state's sample after this step: for inpainting, the original noised to it
    /// is what belongs outside the mask.
    pub after: NoiseLevel,
}

/// A sampling run.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingPlan {
    /// What makes it.
    pub kind: SamplerKind,
    /// One for each call of the model; never empty.
    pub steps: Vec<SamplingStep>,
    /// Sampling steps as they are asked for: some of them call the model twice, and those that
    /// image to image leaves out do not count.
    pub count: usize,
    /// The initial sample is `initial_scale * noise` when starting from pure noise.
    pub initial_scale: f32,
    /// The initial sample is `start.apply(original, noise)` for image to image.
    pub start: NoiseLevel,
    /// Which slots the run touches. Slot 0, the sample, always; the others start at zero.
    pub slots: [bool; SLOTS],
}

/// What a sampler works out: the steps that remain after skipping `skip`, and how the run starts.
pub(in crate::scheduler) struct Run {
    steps: Vec<SamplingStep>,
    initial_scale: f32,
    start: NoiseLevel,
}

/// What a sampler works from.
pub(in crate::scheduler) struct Request<'a> {
    kind: SamplerKind,
    settings: &'a Settings,
    schedule: &'a NoiseSchedule,
    /// Sampling steps of the whole schedule.
    steps: usize,
    /// How many of them image to image leaves out.
    skip: usize,
    eta: f64,
}

/// Plans a run of `kind` on a model's scheduler config.
///
/// # Errors
/// Options that the sampler or the schedule cannot honour, and whatever
/// [`SchedulerConfig::for_sampler`] refuses.
pub fn plan(
    kind: SamplerKind,
    config: &SchedulerConfig,
    options: &PlanOptions,
) -> Result<SamplingPlan, ScheduleError> {
    let mut settings = config.for_sampler(kind)?;
    let request_error = |message: String| Err(ScheduleError::Request(message));
    if let Some(schedule) = options.schedule {
        if !kind.takes(schedule) {
            let those = SamplerKind::those(|it| SamplerKind(it).takes(schedule));
            let what = format!("the schedule {}; {those}", schedule.web_name());
            return Err(ScheduleError::Unsupported { sampler: kind.name(), what });
        }
        schedule.apply(&mut settings);
    }
    let train = settings.num_train_timesteps;
    if !(1..=train).contains(&options.steps) {
        return request_error(format!("{} sampling steps: expected 1 to {train}", options.steps));
    }
    if let Some(eta) = options.eta.filter(|eta| !(0.0..=1.0).contains(eta)) {
        return request_error(format!("eta is {eta}: expected 0 to 1"));
    }
    if options.eta.is_some_and(|eta| eta != 0.0) && kind.0.eta.is_none() {
        let what = format!("eta; {}", SamplerKind::those(|it| it.eta.is_some()));
        return Err(ScheduleError::Unsupported { sampler: kind.name(), what });
    }
    let strength = options.strength.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&strength) {
        return request_error(format!("strength is {strength}: expected 0 to 1"));
    }
    let kept = ((options.steps as f64 * strength) as usize).min(options.steps);
    if kept == 0 {
        return request_error(format!(
            "strength {strength} of {} leaves none to run: raise one of them",
            counted(options.steps, "step")
        ));
    }
    let schedule = NoiseSchedule::new(&settings)?;
    let request = Request {
        kind,
        settings: &settings,
        schedule: &schedule,
        steps: options.steps,
        skip: options.steps - kept,
        eta: options.eta.or(kind.0.eta).unwrap_or(0.0),
    };
    let run = (kind.0.run)(&request)?;
    if run.steps.is_empty() {
        return request_error(format!(
            "strength {strength} leaves no step of a schedule cut off by `lambda_min_clipped`: \
                raise it"
        ));
    }
    let finite = |step: &SamplingStep| {
        step.input_scale.is_finite() && step.matrix.as_flattened().iter().all(|c| c.is_finite())
    };
    if let Some(step) = run.steps.iter().find(|step| !finite(step)) {
        return request_error(format!(
            "{kind} cannot step from timestep {}: there is no signal at this end of the schedule",
            step.timestep
        ));
    }
    let touched = |slot: usize| {
        slot == 0 || run.steps.iter().any(|step| step.matrix[slot].iter().any(|&c| c != 0.0))
    };
    Ok(SamplingPlan {
        kind,
        initial_scale: run.initial_scale,
        start: run.start,
        slots: std::array::from_fn(touched),
        count: kept.min(run.steps.len()),
        steps: run.steps,
    })
}

impl SamplingPlan {
    /// Which of its [`SamplingPlan::count`] sampling steps the call `call` of the model belongs to.
    pub fn step_of(&self, call: usize) -> usize {
        // Exact for Heun's method, whose steps but the last have two calls, and for PNDM, whose
        // first has.
        (call * self.count / self.steps.len().max(1)).min(self.count.saturating_sub(1))
    }
}

/// Applies a step to a state: `state[slot]` are tensors of one size, `output` is the (guided) model
/// output, `noise` is read only where the matrix asks for it and may be empty otherwise. The
/// reference implementation of the kernel.
///
/// # Errors
/// Tensors of different sizes, named by their place.
pub fn apply(
    step: &SamplingStep,
    state: &mut [Vec<f32>; SLOTS],
    output: &[f32],
    noise: &[f32],
) -> Result<(), ScheduleError> {
    let n = state[0].len();
    let inputs: [&[f32]; INPUTS] = std::array::from_fn(|column| match column {
        OUTPUT_COLUMN => output,
        NOISE_COLUMN => noise,
        slot => &state[slot],
    });
    for (column, input) in inputs.iter().enumerate() {
        let used = step.matrix.iter().any(|row| row[column] != 0.0);
        if used && input.len() != n {
            return Err(ScheduleError::Request(format!(
                "input {column} of a sampler step has {} numbers, expected {n}",
                input.len()
            )));
        }
    }
    let combine = |row: &[f32; INPUTS]| -> Vec<f32> {
        let mut sum = vec![0f32; n];
        for (&c, input) in row.iter().zip(inputs).filter(|(c, _)| **c != 0.0) {
            sum.iter_mut().zip(input).for_each(|(s, i)| *s += c * i);
        }
        sum
    };
    let next: Vec<Vec<f32>> = step.matrix.iter().map(combine).collect();
    for (slot, value) in state.iter_mut().zip(next) {
        *slot = value;
    }
    Ok(())
}

/// The rows of a matrix: the sample's, then those of H1, H2 and so on. Slots not named end up zero.
fn matrix<const N: usize>(rows: [Combination; N]) -> Matrix {
    let mut matrix = [[0.0; INPUTS]; SLOTS];
    for (row, combination) in matrix.iter_mut().zip(rows) {
        *row = combination.row();
    }
    matrix
}
