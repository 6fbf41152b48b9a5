//! PNDM: Liu et al., "Pseudo numerical methods for diffusion models on manifolds" (2022): linear
//! multistep (PLMS), after a Runge-Kutta start (PRK) unless the config skips it, as Stable
//! Diffusion's does.
use super::descriptor::{Descriptor, usual};
use super::linear::{Combination, H1, H2, H3, H4, OUT, SAVED, X, ZERO};
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::config::{PredictionType, TimestepSpacing};
use crate::scheduler::schedule::{NoiseLevel, NoiseSchedule, spaced_timesteps};

/// Calls of the model in the Runge-Kutta start: three steps of four.
const PRK_CALLS: usize = 12;

/// `PNDMScheduler`, called PLMS where it skips its Runge-Kutta start
pub(super) static PNDM: Descriptor = Descriptor {
    name: "pndm",
    other_names: &["plms"],
    web_name: "PLMS",
    class: "PNDMScheduler",
    refuses_sample_prediction: true,
    rescales_to_zero_snr: false,
    spacing: TimestepSpacing::Leading,
    set_alpha_to_one: false,
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let settings = request.settings;
    let schedule = request.schedule;
    let stride = (settings.num_train_timesteps / request.steps) as i64;
    let timesteps = timesteps(request, stride)?;
    let transfer = Transfer {
        schedule,
        prediction: settings.prediction,
        final_alpha: if settings.set_alpha_to_one { 1.0 } else { schedule.alpha_at(0)? },
    };
    let level = |t: i64| -> Result<NoiseLevel, ScheduleError> {
        let alpha = schedule.alpha_at(t)?;
        Ok(NoiseLevel { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() })
    };
    let mut steps = Vec::with_capacity(timesteps.len());
    // Image to image leaves out timesteps, but the counter that chooses the formulas starts at 0,
    // as in diffusers.
    for (counter, i) in (request.skip..timesteps.len()).enumerate() {
        let t = timesteps.get(i).copied().unwrap_or_default();
        let prk = !settings.skip_prk_steps && counter < PRK_CALLS;
        let rows = if prk {
            let from = timesteps.get(counter / 4 * 4).copied().unwrap_or(t);
            runge_kutta(&transfer, counter, from, t, stride)?
        } else {
            let history = if settings.skip_prk_steps { counter } else { usize::MAX };
            multistep(&transfer, history, t, stride)?
        };
        steps.push(SamplingStep {
            timestep: t as f32,
            input_scale: 1.0,
            matrix: matrix(rows),
            original: settings.prediction.original(level(t)?).of_sample(),
            needs_noise: false,
            after: match timesteps.get(i + 1) {
                Some(&next) => level(next)?,
                None => NoiseLevel::CLEAN,
            },
        });
    }
    let first = timesteps.get(request.skip).copied().unwrap_or_default();
    Ok(Run { steps, initial_scale: 1.0, start: level(first)? })
}

/// The timesteps of every call of the model. The multistep start calls twice at the second one; the
/// Runge-Kutta start visits the points between the first four too.
fn timesteps(request: &Request, stride: i64) -> Result<Vec<i64>, ScheduleError> {
    let spaced = spaced_timesteps(request.settings, request.steps);
    let mut timesteps: Vec<i64> = spaced.iter().map(|t| t.round_ties_even() as i64).collect();
    if request.settings.skip_prk_steps {
        if let Some(&second) = timesteps.get(1) {
            timesteps.insert(1, second);
        }
        return Ok(timesteps);
    }
    let [a, b, c, d, ..] = timesteps[..] else {
        return Err(ScheduleError::Unsupported {
            sampler: request.kind.name(),
            what: "fewer than 4 steps unless the scheduler config sets `skip_prk_steps`".into(),
        });
    };
    let half = stride / 2;
    let mut calls = Vec::with_capacity(timesteps.len() + PRK_CALLS - 3);
    for (here, next) in [(a, b), (b, c), (c, d)] {
        calls.extend([here, next + half, next + half, next]);
    }
    calls.extend(timesteps.into_iter().skip(3));
    Ok(calls)
}

/// One of the four calls of a Runge-Kutta step from `from`. H4 sums up the slopes, SAVED is the
/// step's first sample.
fn runge_kutta(
    transfer: &Transfer,
    counter: usize,
    from: i64,
    t: i64,
    stride: i64,
) -> Result<[Combination; 6], ScheduleError> {
    let to = if counter.is_multiple_of(2) { t - stride / 2 } else { t };
    Ok(match counter % 4 {
        // The first slope also joins the history that the multistep method goes on with.
        0 => [transfer.step(X, OUT, from, to)?, OUT, H1, H2, OUT * (1.0 / 6.0), X],
        3 => [transfer.step(SAVED, H4 + OUT * (1.0 / 6.0), from, to)?, H1, H2, H3, ZERO, ZERO],
        _ => [transfer.step(SAVED, OUT, from, to)?, H1, H2, H3, H4 + OUT * (1.0 / 3.0), SAVED],
    })
}

/// A multistep update. `calls` counts the calls before this one: the order grows with it up to
/// four.
fn multistep(
    transfer: &Transfer,
    calls: usize,
    t: i64,
    stride: i64,
) -> Result<[Combination; 6], ScheduleError> {
    let (from, to) = (t, t - stride);
    Ok(match calls {
        0 => [transfer.step(X, OUT, from, to)?, OUT, ZERO, ZERO, ZERO, X],
        // The first step once more, with the mean of the slopes at both of its ends.
        1 => [transfer.step(SAVED, (OUT + H1) * 0.5, t + stride, t)?, H1, ZERO, ZERO, ZERO, ZERO],
        2 => [transfer.step(X, (OUT * 3.0 - H1) * 0.5, from, to)?, OUT, H1, ZERO, ZERO, ZERO],
        3 => {
            let slope = (OUT * 23.0 - H1 * 16.0 + H2 * 5.0) * (1.0 / 12.0);
            [transfer.step(X, slope, from, to)?, OUT, H1, H2, ZERO, ZERO]
        }
        _ => {
            let slope = (OUT * 55.0 - H1 * 59.0 + H2 * 37.0 - H3 * 9.0) * (1.0 / 24.0);
            [transfer.step(X, slope, from, to)?, OUT, H1, H2, ZERO, ZERO]
        }
    })
}

/// The transfer from one timestep to another along a given slope: equation 9 of Liu et al.
struct Transfer<'a> {
    schedule: &'a NoiseSchedule,
    prediction: PredictionType,
    /// alpha_cumprod beyond timestep 0.
    final_alpha: f32,
}

impl Transfer<'_> {
    fn step(
        &self,
        sample: Combination,
        output: Combination,
        from: i64,
        to: i64,
    ) -> Result<Combination, ScheduleError> {
        let alpha = self.schedule.alpha_at(from)?;
        let next = if to >= 0 { self.schedule.alpha_at(to)? } else { self.final_alpha };
        let (beta, beta_next) = (1.0 - alpha, 1.0 - next);
        let eps = match self.prediction {
            PredictionType::VPrediction => output * alpha.sqrt() + sample * beta.sqrt(),
            _ => output,
        };
        let divisor = alpha * beta_next.sqrt() + (alpha * beta * next).sqrt();
        Ok(sample * (next / alpha).sqrt() - eps * ((next - alpha) / divisor))
    }
}
