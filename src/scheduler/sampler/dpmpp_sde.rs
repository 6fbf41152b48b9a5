//! DPM-Solver++ of the stochastic equation, singlestep of second order, on sigmas: Lu et al. (2022)
//! as Crowson's k-diffusion has it. Each step goes to the middle (of the logarithm of sigma) and
//! starts again from its beginning with what was seen there; the last one is Euler's.
//!
//! Noise is drawn once for each half of a step. That of the whole step is made of both halves', in
//! proportion to their lengths in sigma, for it is one Brownian path that both looks see.
use super::descriptor::{Descriptor, usual};
use super::euler::{Sigmas, ancestral, input_scale};
use super::linear::{H1, NOISE, SAVED, X, ZERO};
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::schedule::{NoiseLevel, sigma_to_timestep};

/// `DPMSolverSDEScheduler`
pub(super) static DPMPP_SDE: Descriptor = Descriptor {
    name: "dpmpp-sde",
    web_name: "DPM++ SDE",
    class: "DPMSolverSDEScheduler",
    draws_noise: true,
    eta: Some(1.0),
    by_a_tree: true,
    sigma_options: true,
    any_sigmas: true,
    refuses_sample_prediction: true,
    rescales_to_zero_snr: false,
    final_sigmas: false,
    betas: [0.00085, 0.012],
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let sigmas = Sigmas::new(request);
    let logs: Vec<f32> =
        request.schedule.sigmas(request.settings).iter().map(|sigma| sigma.ln()).collect();
    let (prediction, eta) = (request.settings.prediction, request.eta as f32);
    let mut steps = Vec::with_capacity(2 * request.steps);
    for (timestep, sigma, next) in sigmas.steps(request.skip) {
        if next == 0.0 {
            steps.push(SamplingStep {
                timestep,
                input_scale: input_scale(sigma),
                matrix: matrix([prediction.denoised(sigma)]),
                original: prediction.denoised(sigma).of_sample(),
                needs_noise: false,
                after: NoiseLevel::CLEAN,
            });
            continue;
        }
        let middle = ((sigma.ln() + next.ln()) * 0.5).exp();
        let (down, up) = ancestral(sigma, middle, eta);
        let kept = down / sigma;
        let ahead = X * kept + prediction.denoised(sigma) * (1.0 - kept) + NOISE * up;
        steps.push(SamplingStep {
            timestep,
            input_scale: input_scale(sigma),
            matrix: matrix([ahead, if eta > 0.0 { NOISE } else { ZERO }, ZERO, ZERO, ZERO, X]),
            original: prediction.denoised(sigma).of_sample(),
            needs_noise: eta > 0.0,
            after: NoiseLevel::sigma(middle),
        });
        let (down, up) = ancestral(sigma, next, eta);
        let kept = down / sigma;
        let whole = sigma - next;
        let fresh =
            H1 * ((sigma - middle) / whole).sqrt() + NOISE * ((middle - next) / whole).sqrt();
        steps.push(SamplingStep {
            timestep: sigma_to_timestep(f64::from(middle), &logs) as f32,
            input_scale: input_scale(middle),
            matrix: matrix([SAVED * kept
                + prediction.denoised(middle) * (1.0 - kept)
                + fresh * up]),
            original: prediction.denoised(middle).of_sample(),
            needs_noise: eta > 0.0,
            after: NoiseLevel::sigma(next),
        });
    }
    Ok(Run { steps, initial_scale: sigmas.initial_scale, start: sigmas.start(request.skip) })
}
