//! Trajectory consistency distillation: Zheng et al. (2024), strategic stochastic sampling
//! (algorithm 4): each step goes below the next timestep, by the share `eta` (their gamma), and
//! noise brings it back.
use super::descriptor::{Descriptor, usual};
use super::linear::NOISE;
use super::{Request, Run, SamplingStep, ScheduleError, lcm, matrix};
use crate::scheduler::config::{BetaSchedule, TimestepSpacing};
use crate::scheduler::schedule::NoiseLevel;

/// `TCDScheduler`
pub(super) static TCD: Descriptor = Descriptor {
    name: "tcd",
    web_name: "TCD",
    class: "TCDScheduler",
    distilled: true,
    draws_noise: true,
    eta: Some(0.3),
    clip_sample: Some(false),
    thresholding: true,
    betas: [0.00085, 0.012],
    beta_schedule: BetaSchedule::ScaledLinear,
    spacing: TimestepSpacing::Leading,
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let Request { settings, schedule, .. } = request;
    let timesteps = lcm::timesteps(request)?;
    let level = |alpha: f32| NoiseLevel { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() };
    let mut steps = Vec::with_capacity(request.steps);
    for (i, &t) in timesteps.iter().enumerate().skip(request.skip) {
        let here = level(schedule.alpha_at(t)?);
        let (x0, eps) = (settings.prediction.original(here), settings.prediction.noise(here));
        let next = timesteps.get(i + 1).copied();
        let below = ((1.0 - request.eta) as f32 * next.unwrap_or(0) as f32).floor() as i64;
        let alpha_below = schedule.alpha_at(below)?;
        let lower = level(alpha_below);
        let mut sample = x0 * lower.signal + eps * lower.noise;
        let fresh = next.filter(|_| request.eta > 0.0);
        if let Some(next) = fresh {
            let share = schedule.alpha_at(next)? / alpha_below;
            sample = sample * share.sqrt() + NOISE * (1.0 - share).sqrt();
        }
        steps.push(SamplingStep {
            timestep: t as f32,
            input_scale: 1.0,
            matrix: matrix([sample]),
            original: x0.of_sample(),
            needs_noise: fresh.is_some(),
            after: match next {
                Some(next) => level(schedule.alpha_at(next)?),
                None => NoiseLevel::CLEAN,
            },
        });
    }
    let first = timesteps.get(request.skip).copied().unwrap_or_default();
    Ok(Run { steps, initial_scale: 1.0, start: level(schedule.alpha_at(first)?) })
}
