//! DPM-Solver++ (multistep) and its SDE variant: Lu et al., "DPM-Solver++: fast solver for guided
//! sampling" (2022). The memory holds predictions of x0: H1 the last one, H2 the one before it.
use super::descriptor::{Descriptor, usual};
use super::linear::{Combination, H1, H2, NOISE, X, ZERO};
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::config::{FinalSigmas, Settings, SigmaSpacing, SolverType, TimestepSpacing};
use crate::scheduler::schedule::{
    NoiseLevel, linspace, sigma_at, sigma_to_timestep, trailing, web_timesteps,
};

/// Below this number of steps the last ones use lower orders, for stability.
const FEW_STEPS: usize = 15;

/// `DPMSolverMultistepScheduler`
pub(super) static DPMPP_2M: Descriptor = Descriptor {
    name: "dpmpp-2m",
    other_names: &["dpmpp2m", "dpm-solver", "dpm-solverpp"],
    web_name: "DPM++ 2M",
    class: "DPMSolverMultistepScheduler",
    algorithms: &["dpmsolver++", "deis"],
    stands_in_for: &["DPMSolverSinglestepScheduler", "DEISMultistepScheduler"],
    thresholding: true,
    sigma_options: true,
    any_sigmas: true,
    multistep: true,
    ..usual(run)
};

/// `DPMSolverMultistepScheduler` with `algorithm_type = "sde-dpmsolver++"`
pub(super) static DPMPP_2M_SDE: Descriptor = Descriptor {
    name: "dpmpp-2m-sde",
    other_names: &["dpmpp2m-sde"],
    web_name: "DPM++ 2M SDE",
    algorithms: &["sde-dpmsolver++"],
    draws_noise: true,
    eta: Some(1.0),
    by_a_tree: true,
    class: "DPMSolverMultistepScheduler",
    thresholding: true,
    sigma_options: true,
    any_sigmas: true,
    multistep: true,
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let settings = request.settings;
    let (timesteps, sigmas) = timesteps_and_sigmas(request)?;
    let points: Vec<Point> = sigmas.into_iter().map(Point::new).collect();
    let at = |i: usize| points.get(i).copied().unwrap_or(Point::new(0.0));
    let count = timesteps.len();
    let few = settings.lower_order_final && count < FEW_STEPS;
    let stochastic = request.kind.0.draws_noise;
    let eta = if stochastic { request.eta as f32 } else { 0.0 };
    let solver = Solver { stochastic, eta, solver_type: settings.solver_type };
    let mut steps = Vec::with_capacity(count);
    for (i, &timestep) in timesteps.iter().enumerate().skip(request.skip) {
        let last = i + 1 == count
            && (few || settings.euler_at_final || settings.final_sigmas == FinalSigmas::Zero);
        let last_but_one = i + 2 == count && few;
        let known = i - request.skip;
        let mut order = settings.solver_order.min(known + 1);
        if last {
            order = 1;
        } else if last_but_one {
            order = order.min(2);
        }
        let (here, next) = (at(i), at(i + 1));
        let x0 = settings.prediction.original(here.level);
        let sample = match order {
            1 => solver.update([here], next, x0),
            2 => solver.update([at(i - 1), here], next, x0),
            _ => solver.update([at(i - 2), at(i - 1), here], next, x0),
        };
        let remembered = settings.solver_order;
        steps.push(SamplingStep {
            timestep: timestep as f32,
            input_scale: 1.0,
            matrix: matrix([
                sample,
                if remembered > 1 { x0 } else { ZERO },
                if remembered > 2 { H1 } else { ZERO },
            ]),
            original: x0.of_sample(),
            needs_noise: solver.eta > 0.0,
            after: if i + 1 == count { NoiseLevel::CLEAN } else { next.level },
        });
    }
    Ok(Run { steps, initial_scale: 1.0, start: at(request.skip).level })
}

/// One noise level. All in f32, because diffusers divides by small differences of these.
#[derive(Clone, Copy)]
pub(super) struct Point {
    pub level: NoiseLevel,
    /// log(signal / noise)
    pub lambda: f32,
}

impl Point {
    pub fn new(sigma: f32) -> Self {
        let signal = 1.0 / (sigma * sigma + 1.0).sqrt();
        let noise = sigma * signal;
        Self { level: NoiseLevel { signal, noise }, lambda: signal.ln() - noise.ln() }
    }
}

struct Solver {
    stochastic: bool,
    /// The share of fresh noise; the equation is the stochastic one as far as it is 1.
    eta: f32,
    solver_type: SolverType,
}

impl Solver {
    /// The next sample from the levels visited last (oldest first, ending with the present one),
    /// which set the order.
    fn update<const ORDER: usize>(
        &self,
        visited: [Point; ORDER],
        next: Point,
        x0: Combination,
    ) -> Combination {
        let mut newest_first = visited.iter().rev();
        let here = newest_first.next().copied().unwrap_or(next);
        let h = next.lambda - here.lambda;
        let older: Vec<f32> = visited.windows(2).rev().map(|w| w[1].lambda - w[0].lambda).collect();
        let (signal, noise) = (next.level.signal, next.level.noise);
        let ratio = noise / here.level.noise;
        let double = (1.0 + self.eta) * h;
        // `e`: how much of the way from the sample to x0 this step goes; the SDE goes twice as far
        // and adds noise instead.
        let (keep, e, fresh) = if self.stochastic {
            // Not of an endless last step.
            let far = if self.eta > 0.0 { self.eta * h } else { 0.0 };
            (ratio * (-far).exp(), 1.0 - (-double).exp(), noise * (1.0 - (-2.0 * far).exp()).sqrt())
        } else {
            (ratio, -((-h).exp() - 1.0), 0.0)
        };
        let base = X * keep + x0 * (signal * e) + NOISE * fresh;
        // Coefficients of the first and second derivative of x0 in lambda, scaled by h and h^2.
        let linear = signal * (1.0 - e / double);
        match older[..] {
            [] => base,
            [h0] => {
                let d1 = (x0 - H1) * (h / h0);
                base + d1
                    * match self.solver_type {
                        SolverType::Heun => linear,
                        _ => 0.5 * (signal * e),
                    }
            }
            [h0, h1, ..] => {
                let (r0, r1) = (h0 / h, h1 / h);
                let (d10, d11) = ((x0 - H1) * (1.0 / r0), (H1 - H2) * (1.0 / r1));
                let d1 = d10 + (d10 - d11) * (r0 / (r0 + r1));
                let d2 = (d10 - d11) * (1.0 / (r0 + r1));
                let quadratic = if self.stochastic {
                    signal * ((e - double) / (double * double) - 0.5)
                } else {
                    -signal * ((h - e) / (h * h) - 0.5)
                };
                base + d1 * linear + d2 * quadratic
            }
        }
    }
}

/// The timesteps of a run and its sigmas, of which there is one more.
pub(super) fn timesteps_and_sigmas(
    request: &Request,
) -> Result<(Vec<f64>, Vec<f32>), ScheduleError> {
    let (settings, n) = (request.settings, request.steps);
    let table = request.schedule.sigmas(settings);
    let mut timesteps = spaced(settings, last_timestep(settings, &table), n)?;
    let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| sigma_at(settings, &table, t)).collect();
    let mut least = table.first().copied().unwrap_or_default();
    if settings.sigmas != SigmaSpacing::Timesteps {
        let end = |sigma: Option<&f32>| sigma.copied().map_or(0.0, f64::from);
        sigmas = settings.sigmas.sigmas(end(table.first()), end(table.last()), n);
        let logs: Vec<f32> = table.iter().map(|sigma| sigma.ln()).collect();
        let fractional = sigmas.iter().map(|&sigma| sigma_to_timestep(sigma, &logs));
        timesteps = fractional.map(|t| rounded(request, t)).collect();
        if request.kind.0.corrects {
            least = sigmas.last().map_or(least, |&last| last as f32);
        }
    }
    let mut sigmas: Vec<f32> = sigmas.into_iter().map(|sigma| sigma as f32).collect();
    sigmas.push(match settings.final_sigmas {
        FinalSigmas::Zero => 0.0,
        FinalSigmas::SigmaMin => least,
    });
    Ok((timesteps, sigmas))
}

/// The timestep of a sigma: diffusers cuts it, but rounds those of Karras, if not on the cosine
/// schedule.
fn rounded(request: &Request, t: f64) -> f64 {
    use crate::scheduler::config::BetaSchedule::SquaredcosCapV2;
    let settings = request.settings;
    let cosine = settings.beta_schedule == SquaredcosCapV2 && !request.kind.0.corrects;
    match settings.sigmas {
        SigmaSpacing::Karras if !cosine => t.round_ties_even(),
        _ => t.floor(),
    }
}

/// How many training steps have lambda >= `lambda_min_clipped`: the noisiest ones are numerically
/// useless on cosine schedules.
fn last_timestep(settings: &Settings, table: &[f32]) -> usize {
    let lambda = |&sigma: &f32| -sigma.ln();
    let clipped = table.iter().rev().take_while(|s| lambda(s) < settings.lambda_min_clipped);
    settings.num_train_timesteps - clipped.count()
}

/// Timesteps by spacing. Unlike the other samplers', they leave out the end at timestep 0.
fn spaced(settings: &Settings, last: usize, n: usize) -> Result<Vec<f64>, ScheduleError> {
    if last == 0 {
        return Err(ScheduleError::Config {
            option: "lambda_min_clipped",
            found: settings.lambda_min_clipped.to_string(),
            expected: "a value that leaves some of the schedule".into(),
        });
    }
    Ok(match settings.spacing {
        TimestepSpacing::Linspace => {
            let all = linspace((last - 1) as f64, n + 1).into_iter();
            all.take(n).map(f64::round_ties_even).collect()
        }
        TimestepSpacing::Leading => {
            let ratio = last / (n + 1);
            (1..=n).rev().map(|i| (i * ratio + settings.steps_offset) as f64).collect()
        }
        TimestepSpacing::Trailing => {
            let ratio = settings.num_train_timesteps as f64 / n as f64;
            trailing(last as f64, ratio)
        }
        TimestepSpacing::SgmUniform | TimestepSpacing::Simple => web_timesteps(settings, n),
    })
}
