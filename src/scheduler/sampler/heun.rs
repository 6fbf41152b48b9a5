//! Heun's method on sigmas: Karras et al., "Elucidating the design space" (2022), algorithm 1.
//! Each step looks ahead with Euler's method, then repeats with the mean of both slopes; the last
//! step is Euler's.
use super::descriptor::{Descriptor, usual};
use super::euler::{Sigmas, input_scale};
use super::linear::{H1, SAVED, X, ZERO};
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::schedule::NoiseLevel;

/// `HeunDiscreteScheduler`
pub(super) static HEUN: Descriptor = Descriptor {
    name: "heun",
    web_name: "Heun",
    class: "HeunDiscreteScheduler",
    clip_sample: Some(false),
    sigma_options: true,
    any_sigmas: true,
    rescales_to_zero_snr: false,
    final_sigmas: false,
    betas: [0.00085, 0.012],
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let sigmas = Sigmas::new(request);
    let mut steps = Vec::with_capacity(2 * request.steps);
    let mut ahead = sigmas.timesteps.iter().skip(request.skip + 1);
    for (timestep, sigma, next) in sigmas.steps(request.skip) {
        let slope = request.settings.prediction.derivative(sigma);
        let stride = next - sigma;
        let after = NoiseLevel::sigma(next);
        let look_ahead = X + slope * stride;
        let next_timestep = ahead.next();
        steps.push(SamplingStep {
            timestep,
            input_scale: input_scale(sigma),
            // The slope and the sample wait for the second look, where there is one.
            matrix: match next_timestep {
                Some(_) => matrix([look_ahead, slope, ZERO, ZERO, ZERO, X]),
                None => matrix([look_ahead]),
            },
            original: request.settings.prediction.denoised(sigma).of_sample(),
            needs_noise: false,
            after,
        });
        if let Some(&timestep) = next_timestep {
            let slope = request.settings.prediction.derivative(next);
            steps.push(SamplingStep {
                timestep,
                input_scale: input_scale(next),
                matrix: matrix([SAVED + (H1 + slope) * 0.5 * stride]),
                original: request.settings.prediction.denoised(next).of_sample(),
                needs_noise: false,
                after,
            });
        }
    }
    Ok(Run { steps, initial_scale: sigmas.initial_scale, start: sigmas.start(request.skip) })
}
