//! Latent consistency models: Luo et al. (2023), multistep consistency sampling (algorithm 1 of
//! Song et al. 2023).
use super::descriptor::{Descriptor, usual};
use super::linear::{NOISE, X};
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::config::{BetaSchedule, TimestepSpacing};
use crate::scheduler::schedule::NoiseLevel;

/// Standard deviation of the data that the boundary condition assumes.
const SIGMA_DATA: f32 = 0.5;

/// `LCMScheduler`
pub(super) static LCM: Descriptor = Descriptor {
    name: "lcm",
    web_name: "LCM",
    class: "LCMScheduler",
    distilled: true,
    clip_sample: Some(false),
    thresholding: true,
    betas: [0.00085, 0.012],
    beta_schedule: BetaSchedule::ScaledLinear,
    spacing: TimestepSpacing::Leading,
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let Request { settings, schedule, .. } = request;
    let timesteps = timesteps(request)?;
    let level = |t: i64| -> Result<NoiseLevel, ScheduleError> {
        let alpha = schedule.alpha_at(t)?;
        Ok(NoiseLevel { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() })
    };
    let mut steps = Vec::with_capacity(request.steps);
    for (i, &t) in timesteps.iter().enumerate().skip(request.skip) {
        let here = level(t)?;
        let scaled = t as f32 * settings.timestep_scaling;
        let variance = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
        let skip = SIGMA_DATA * SIGMA_DATA / variance;
        let out = scaled / variance.sqrt();
        let denoised = settings.prediction.original(here) * out + X * skip;
        let next = timesteps.get(i + 1).map(|&next| level(next)).transpose()?;
        steps.push(SamplingStep {
            timestep: t as f32,
            input_scale: 1.0,
            matrix: match next {
                Some(next) => matrix([denoised * next.signal + NOISE * next.noise]),
                None => matrix([denoised]),
            },
            original: denoised.of_sample(),
            needs_noise: next.is_some(),
            after: next.unwrap_or(NoiseLevel::CLEAN),
        });
    }
    Ok(Run {
        steps,
        initial_scale: 1.0,
        start: level(timesteps.get(request.skip).copied().unwrap_or_default())?,
    })
}

/// Evenly from the `original_inference_steps` timesteps that the model was distilled on, which end
/// at the schedule's end.
pub(super) fn timesteps(request: &Request) -> Result<Vec<i64>, ScheduleError> {
    let (train, original, n) = (
        request.settings.num_train_timesteps,
        request.settings.original_inference_steps,
        request.steps,
    );
    if original == 0 || original > train {
        return Err(ScheduleError::Config {
            option: "original_inference_steps",
            found: original.to_string(),
            expected: format!("1 to {train}"),
        });
    }
    if n > original {
        return Err(ScheduleError::Request(format!(
            "{n} sampling steps: {} takes at most {original} (`original_inference_steps`)",
            request.kind
        )));
    }
    let stride = train / original;
    let step = original as f64 / n as f64;
    let distilled = |i: usize| ((original - i) * stride) as i64 - 1;
    Ok((0..n).map(|i| distilled((i as f64 * step).floor() as usize)).collect())
}
