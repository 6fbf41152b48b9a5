//! DDIM: Song, Meng, Ermon, "Denoising diffusion implicit models" (2021), equations 12 and 16.
use super::descriptor::{Descriptor, usual};
use super::linear::NOISE;
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::config::TimestepSpacing;
use crate::scheduler::schedule::{NoiseLevel, spaced_timesteps};

/// `DDIMScheduler`
pub(super) static DDIM: Descriptor = Descriptor {
    name: "ddim",
    web_name: "DDIM",
    class: "DDIMScheduler",
    stands_in_for: &["DDPMScheduler"],
    eta: Some(0.0),
    clip_sample: Some(true),
    thresholding: true,
    spacing: TimestepSpacing::Leading,
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let Request { settings, schedule, .. } = request;
    let spaced = spaced_timesteps(settings, request.steps);
    let timesteps: Vec<i64> = spaced.iter().map(|t| t.round_ties_even() as i64).collect();
    let stride = (settings.num_train_timesteps / request.steps) as i64;
    let mut final_alpha = 1.0;
    if !settings.set_alpha_to_one {
        final_alpha = schedule.alpha_at(0)?;
    }
    let level = |alpha: f32| NoiseLevel { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() };
    let mut steps = Vec::with_capacity(request.steps);
    for (i, &t) in timesteps.iter().enumerate().skip(request.skip) {
        let alpha = schedule.alpha_at(t)?;
        let alpha_next = match t - stride {
            next if next >= 0 => schedule.alpha_at(next)?,
            _ => final_alpha,
        };
        let (x0, eps) =
            (settings.prediction.original(level(alpha)), settings.prediction.noise(level(alpha)));
        let variance = (1.0 - alpha_next) / (1.0 - alpha) * (1.0 - alpha / alpha_next);
        let deviation = request.eta as f32 * variance.max(0.0).sqrt();
        let direction = (1.0 - alpha_next - deviation * deviation).max(0.0).sqrt();
        let next = x0 * alpha_next.sqrt() + eps * direction + NOISE * deviation;
        steps.push(SamplingStep {
            timestep: t as f32,
            input_scale: 1.0,
            matrix: matrix([next]),
            original: x0.of_sample(),
            needs_noise: request.eta > 0.0,
            after: match timesteps.get(i + 1) {
                Some(&next) => level(schedule.alpha_at(next)?),
                None => NoiseLevel::CLEAN,
            },
        });
    }
    let first = timesteps.get(request.skip).copied().unwrap_or_default();
    Ok(Run { steps, initial_scale: 1.0, start: level(schedule.alpha_at(first)?) })
}
