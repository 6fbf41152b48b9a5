//! DPM-Solver++ of the stochastic equation, multistep of third order, on sigmas, as Crowson's
//! k-diffusion has it: diffusers' solver of that order has another sign in its last term. The
//! memory holds predictions of x0: H1 the last one, H2 the one before it.
use super::descriptor::{Descriptor, usual};
use super::euler::{Sigmas, input_scale};
use super::linear::{H1, H2, NOISE, X};
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::schedule::NoiseLevel;

/// No class of diffusers; its levels are those of `EulerDiscreteScheduler`.
pub(super) static DPMPP_3M_SDE: Descriptor = Descriptor {
    name: "dpmpp-3m-sde",
    other_names: &["dpmpp3m-sde"],
    web_name: "DPM++ 3M SDE",
    draws_noise: true,
    eta: Some(1.0),
    by_a_tree: true,
    sigma_options: true,
    any_sigmas: true,
    final_sigmas: false,
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let sigmas = Sigmas::new(request);
    let eta = request.eta;
    let mut steps = Vec::with_capacity(request.steps);
    // Lengths of the steps before, in the logarithm of sigma, the last one first.
    let mut before: Vec<f64> = Vec::new();
    for (timestep, sigma, next) in sigmas.steps(request.skip) {
        let x0 = request.settings.prediction.denoised(sigma);
        if next == 0.0 {
            steps.push(SamplingStep {
                timestep,
                input_scale: input_scale(sigma),
                matrix: matrix([x0]),
                original: x0.of_sample(),
                needs_noise: false,
                after: NoiseLevel::CLEAN,
            });
            continue;
        }
        let h = (f64::from(sigma) / f64::from(next)).ln();
        let far = h * (1.0 + eta);
        let mut sample = X * (-far).exp() + x0 * -(-far).exp_m1();
        // Weights of the first and second derivative of x0.
        let second = (-far).exp_m1() / far + 1.0;
        let third = second / far - 0.5;
        match before[..] {
            [] => {}
            [h1] => sample = sample + (x0 - H1) * (h / h1) * second,
            [h1, h2, ..] => {
                let (r0, r1) = (h1 / h, h2 / h);
                let (d0, d1) = ((x0 - H1) * (1.0 / r0), (H1 - H2) * (1.0 / r1));
                let slope = d0 + (d0 - d1) * (r0 / (r0 + r1));
                sample = sample + slope * second - (d0 - d1) * (1.0 / (r0 + r1)) * third;
            }
        }
        let fresh = f64::from(next) * (-(-2.0 * h * eta).exp_m1()).sqrt();
        steps.push(SamplingStep {
            timestep,
            input_scale: input_scale(sigma),
            matrix: matrix([sample + NOISE * fresh, x0, H1]),
            original: x0.of_sample(),
            needs_noise: eta > 0.0,
            after: NoiseLevel::sigma(next),
        });
        before.insert(0, h);
    }
    Ok(Run { steps, initial_scale: sigmas.initial_scale, start: sigmas.start(request.skip) })
}
