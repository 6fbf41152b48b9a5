//! UniPC: Zhao et al., "UniPC: a unified predictor-corrector framework" (2023), in the form that
//! predicts x0, with B(h) of either kind. Before a step the last one is corrected by what the model
//! says at its end, which costs no further call.
//!
//! The memory holds predictions of x0 (H1 the last one, then H2 and H3), and the corrected sample
//! that the last step went from.
use super::descriptor::{Descriptor, usual};
use super::dpm_solver::{Point, timesteps_and_sigmas};
use super::linear::{Combination, H1, H2, H3, SAVED, X, ZERO};
use super::{Request, Run, SamplingStep, ScheduleError, matrix};
use crate::scheduler::config::SolverType;
use crate::scheduler::schedule::NoiseLevel;

/// `UniPCMultistepScheduler`
pub(super) static UNIPC: Descriptor = Descriptor {
    name: "unipc",
    other_names: &["uni-pc", "uni-pc-bh2"],
    web_name: "UniPC",
    class: "UniPCMultistepScheduler",
    thresholding: true,
    sigma_options: true,
    any_sigmas: true,
    multistep: true,
    corrects: true,
    ..usual(run)
};

fn run(request: &Request) -> Result<Run, ScheduleError> {
    let settings = request.settings;
    let (timesteps, sigmas) = timesteps_and_sigmas(request)?;
    let points: Vec<Point> = sigmas.into_iter().map(Point::new).collect();
    let at = |i: usize| points.get(i).copied().unwrap_or(Point::new(0.0));
    let (count, most) = (timesteps.len(), settings.solver_order);
    let linear_in_h = settings.solver_type == SolverType::Bh1;
    let (mut steps, mut last_order) = (Vec::with_capacity(count), 0);
    for (i, &timestep) in timesteps.iter().enumerate().skip(request.skip) {
        let known = i - request.skip;
        let x0 = settings.prediction.original(at(i).level);
        // Steps are counted in the whole schedule, as diffusers does.
        let corrects = known > 0 && !settings.disable_corrector.contains(&(i - 1));
        let sample = match corrects {
            true => {
                // The last step once more, from where it started.
                let step = Step::new(at(i - 1), at(i), linear_in_h);
                let history: Vec<(Point, Combination)> = [H2, H3]
                    .into_iter()
                    .take(last_order - 1)
                    .zip(2..)
                    .map(|(x0, back)| (at(i - back), x0))
                    .collect();
                step.corrected(SAVED, H1, x0, &history)
            }
            false => X,
        };
        let mut order = most.min(known + 1);
        if settings.lower_order_final {
            order = order.min(count - i);
        }
        let history: Vec<(Point, Combination)> = [H1, H2]
            .into_iter()
            .take(order - 1)
            .zip(1..)
            .map(|(x0, back)| (at(i - back), x0))
            .collect();
        let next = Step::new(at(i), at(i + 1), linear_in_h).predicted(sample, x0, &history);
        last_order = order;
        steps.push(SamplingStep {
            timestep: timestep as f32,
            input_scale: 1.0,
            matrix: matrix([
                next,
                x0,
                if most > 1 { H1 } else { ZERO },
                if most > 2 { H2 } else { ZERO },
                ZERO,
                sample,
            ]),
            original: x0.of_sample(),
            needs_noise: false,
            after: if i + 1 == count { NoiseLevel::CLEAN } else { at(i + 1).level },
        });
    }
    Ok(Run { steps, initial_scale: 1.0, start: at(request.skip).level })
}

/// A step from one level to another.
struct Step {
    here: Point,
    next: Point,
    /// Minus the length in lambda.
    hh: f64,
    linear_in_h: bool,
}

impl Step {
    fn new(here: Point, next: Point, linear_in_h: bool) -> Step {
        Step { here, next, hh: -f64::from(next.lambda - here.lambda), linear_in_h }
    }

    /// B(h)
    fn b(&self) -> f64 {
        if self.linear_in_h { self.hh } else { self.hh.exp_m1() }
    }

    /// The sample where x0 stays what it is.
    fn straight(&self, sample: Combination, x0: Combination) -> Combination {
        let ratio = self.next.level.noise / self.here.level.noise;
        sample * ratio - x0 * (f64::from(self.next.level.signal) * self.hh.exp_m1())
    }

    /// Where earlier levels lie, in steps from here, and the slopes of x0 to them.
    fn slopes(
        &self,
        x0: Combination,
        history: &[(Point, Combination)],
    ) -> (Vec<f64>, Vec<Combination>) {
        let slope = |&(point, older): &(Point, Combination)| {
            let r = f64::from(point.lambda - self.here.lambda) / -self.hh;
            (r, (older - x0) * (1.0 / r))
        };
        history.iter().map(slope).unzip()
    }

    /// The weights of slopes at places `r`, by which the step is exact as far as x0 is a polynomial
    /// of their number.
    fn weights(&self, r: &[f64]) -> Vec<f64> {
        let n = r.len();
        let mut phi = self.hh.exp_m1() / self.hh - 1.0;
        let mut factorial = 1.0;
        let mut rows: Vec<Vec<f64>> = Vec::with_capacity(n);
        for i in 0..n {
            let mut row: Vec<f64> = r.iter().map(|r| r.powi(i as i32)).collect();
            row.push(phi * factorial / self.b());
            rows.push(row);
            factorial *= (i + 2) as f64;
            phi = phi / self.hh - 1.0 / factorial;
        }
        solved(rows)
    }

    fn predicted(
        &self,
        sample: Combination,
        x0: Combination,
        history: &[(Point, Combination)],
    ) -> Combination {
        let (places, slopes) = self.slopes(x0, history);
        // Of second order by the paper's simpler form.
        let weights = if slopes.len() == 1 { vec![0.5] } else { self.weights(&places) };
        self.bent(self.straight(sample, x0), weights.into_iter().zip(slopes))
    }

    fn corrected(
        &self,
        sample: Combination,
        x0: Combination,
        ahead: Combination,
        history: &[(Point, Combination)],
    ) -> Combination {
        let (mut places, mut slopes) = self.slopes(x0, history);
        places.push(1.0);
        slopes.push(ahead - x0);
        let weights = if slopes.len() == 1 { vec![0.5] } else { self.weights(&places) };
        self.bent(self.straight(sample, x0), weights.into_iter().zip(slopes))
    }

    fn bent(
        &self,
        straight: Combination,
        slopes: impl Iterator<Item = (f64, Combination)>,
    ) -> Combination {
        let factor = f64::from(self.next.level.signal) * self.b();
        slopes.fold(straight, |sum, (weight, slope)| sum - slope * (factor * weight))
    }
}

/// Solves a small system, each row of which ends with its right-hand side.
fn solved(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs()));
        rows.swap(i, pivot.unwrap_or(i));
        let (above, below) = rows.split_at_mut(i + 1);
        let row = &above[i];
        for other in below {
            let factor = other[i] / row[i];
            other.iter_mut().zip(row).for_each(|(a, b)| *a -= factor * b);
        }
    }
    let mut solution = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| rows[i][j] * solution[j]).sum();
        solution[i] = (rows[i][n] - known) / rows[i][i];
    }
    solution
}
