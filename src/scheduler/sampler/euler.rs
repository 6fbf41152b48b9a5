//! Euler's method and its ancestral variant on sigmas: Karras et al., "Elucidating the design
//! space" (2022), and Crowson's k-diffusion.
use super::descriptor::{Descriptor, usual};
use super::linear::{NOISE, X};
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::config::{FinalSigmas, Settings, SigmaSpacing, TimestepSpacing};
use crate::scheduler::schedule::{NoiseLevel, sigma_at, sigma_to_timestep, spaced_timesteps};

/// A run's noise levels for samplers that work on sigmas.
pub(super) struct Sigmas {
    /// One for each sampling step.
    pub timesteps: Vec<f32>,
    /// One more than timesteps: the last one is where the run ends.
    pub sigmas: Vec<f32>,
    pub initial_scale: f32,
}

impl Sigmas {
    pub(super) fn new(request: &Request) -> Self {
        let settings = request.settings;
        let table = request.schedule.sigmas(settings);
        let spaced = spaced_timesteps(settings, request.steps);
        let mut timesteps: Vec<f32> = spaced.into_iter().map(|t| t as f32).collect();
        let mut sigmas: Vec<f64> =
            timesteps.iter().map(|&t| sigma_at(settings, &table, f64::from(t))).collect();
        if settings.sigmas != SigmaSpacing::Timesteps {
            let min = settings.sigma_min.or(sigmas.last().copied()).unwrap_or_default();
            let max = settings.sigma_max.or(sigmas.first().copied()).unwrap_or_default();
            sigmas = settings.sigmas.sigmas(min, max, request.steps);
            let logs: Vec<f32> = table.iter().map(|sigma| sigma.ln()).collect();
            timesteps = sigmas.iter().map(|&s| sigma_to_timestep(s, &logs) as f32).collect();
        }
        let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
        sigmas.push(match settings.final_sigmas {
            FinalSigmas::Zero => 0.0,
            FinalSigmas::SigmaMin => table.first().copied().unwrap_or_default(),
        });
        let max = sigmas.iter().copied().fold(0.0, f32::max);
        Self { timesteps, sigmas, initial_scale: initial_scale(settings, max) }
    }

    /// (timestep, sigma here, sigma at the next step) of the steps from `skip` on.
    pub(super) fn steps(&self, skip: usize) -> impl Iterator<Item = (f32, f32, f32)> {
        let pairs = self.sigmas.windows(2).filter_map(|pair| <[f32; 2]>::try_from(pair).ok());
        let steps = self.timesteps.iter().zip(pairs).skip(skip);
        steps.map(|(&timestep, [sigma, next])| (timestep, sigma, next))
    }

    /// The level that image to image starts at when it skips `skip` steps.
    pub(super) fn start(&self, skip: usize) -> NoiseLevel {
        NoiseLevel::sigma(self.sigmas.get(skip).copied().unwrap_or_default())
    }
}

/// Leading timesteps stop short of the schedule's end, so the sample is taken to hold signal of
/// unit variance too.
fn initial_scale(settings: &Settings, max: f32) -> f32 {
    match settings.spacing {
        TimestepSpacing::Leading => (max * max + 1.0).sqrt(),
        _ => max,
    }
}

/// The level that a step from `sigma` goes down to, and the deviation of the fresh noise that
/// brings it to `next`.
pub(super) fn ancestral(sigma: f32, next: f32, eta: f32) -> (f32, f32) {
    let (from, to) = (sigma * sigma, next * next);
    let up = next.min(eta * (to * (from - to) / from).max(0.0).sqrt());
    ((to - up * up).max(0.0).sqrt(), up)
}

/// The model was trained on inputs of unit variance.
pub(super) fn input_scale(sigma: f32) -> f32 {
    1.0 / (sigma * sigma + 1.0).sqrt()
}

/// `EulerDiscreteScheduler`
pub(super) static EULER: Descriptor = Descriptor {
    name: "euler",
    web_name: "Euler",
    class: "EulerDiscreteScheduler",
    stands_in_for: &["KDPM2DiscreteScheduler", "LMSDiscreteScheduler"],
    sigma_options: true,
    any_sigmas: true,
    interpolation: true,
    ..usual(run)
};

/// `EulerAncestralDiscreteScheduler`
pub(super) static EULER_ANCESTRAL: Descriptor = Descriptor {
    name: "euler-ancestral",
    other_names: &["euler-a"],
    web_name: "Euler a",
    class: "EulerAncestralDiscreteScheduler",
    stands_in_for: &["KDPM2AncestralDiscreteScheduler"],
    draws_noise: true,
    eta: Some(1.0),
    any_sigmas: true,
    refuses_sample_prediction: true,
    final_sigmas: false,
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let sigmas = Sigmas::new(request);
    let draws = request.kind.0.draws_noise;
    let mut steps: Vec<SamplingStep> = sigmas
        .steps(request.skip)
        .map(|(timestep, sigma, next)| {
            let (mut down, mut up) = (next, 0.0);
            if draws {
                (down, up) = ancestral(sigma, next, request.eta as f32);
            }
            let derivative = request.settings.prediction.derivative(sigma);
            SamplingStep {
                timestep,
                input_scale: input_scale(sigma),
                matrix: matrix([X + derivative * (down - sigma) + NOISE * up]),
                original: request.settings.prediction.denoised(sigma).of_sample(),
                needs_noise: draws && request.eta > 0.0,
                after: NoiseLevel::sigma(next),
            }
        })
        .collect();
    if let Some(last) = steps.last_mut() {
        last.after = NoiseLevel::CLEAN;
    }
    Ok(Run { steps, initial_scale: sigmas.initial_scale, start: sigmas.start(request.skip) })
}
