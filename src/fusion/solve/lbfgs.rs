//! The published way: L-BFGS from the base weights, stopped early.

use std::collections::VecDeque;

use faer::Mat;

use super::gathered::Target;
use super::{Change, Gathered, inner};
use crate::watch::{Cancelled, Progress, Watch, heed};

/// Settings of L-BFGS (Liu and Nocedal 1989) with a line search for the strong Wolfe conditions.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Lbfgs {
    /// 0: the published number, which differs by stage.
    pub iterations: usize,
}

/// Steps that are remembered.
const HISTORY: usize = 25;
/// Of gradient and of change, below which the search ends.
const TOLERANCE: f64 = 1e-16;
/// The two constants of the Wolfe conditions, and trials of one line search.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;
const TRIALS: usize = 25;

pub(super) fn solve(
    gathered: &Gathered,
    settings: Lbfgs,
    watch: &mut Watch,
) -> Result<Vec<Change>, Cancelled> {
    gathered.targets.iter().map(|target| minimise(gathered, target, settings, watch)).collect()
}

/// The mean squared error over all inputs and outputs, a quadratic of the change D: (tr D G D^T - 2
/// tr D B^T + e) / (rows out).
fn minimise(
    gathered: &Gathered,
    target: &Target,
    settings: Lbfgs,
    watch: &mut Watch,
) -> Result<Change, Cancelled> {
    let (out, width) = (target.layer.out, gathered.width);
    let identity = Mat::identity(out, out);
    let count = gathered.rows * out as f64;
    if count == 0.0 || target.energy == 0.0 {
        return Ok(Change { left: identity, right: Mat::zeros(out, width) });
    }
    let product = |d: &Mat<f64>| gathered.inputs.times(d) * faer::Scale(2.0 / count);
    let mut x: Mat<f64> = Mat::zeros(out, width);
    let mut g = &target.up * &target.down_gram * faer::Scale(-2.0 / count);
    let mut loss = target.energy / count;
    let mut memory: VecDeque<(Mat<f64>, Mat<f64>, f64)> = VecDeque::new();
    let mut scale = 1.0;
    let mut previous: Option<(Mat<f64>, Mat<f64>, f64)> = None;
    let (mut evaluations, most_evaluations) = (1, settings.iterations * 5 / 4);
    for iteration in 0..settings.iterations {
        heed(watch(Progress::new("solve", iteration, settings.iterations)))?;
        if g.norm_max() <= TOLERANCE {
            break;
        }
        if let Some((old_g, d, t)) = previous.take() {
            let (s, y) = (d * faer::Scale(t), &g - old_g);
            let curvature = inner(&y, &s);
            if curvature > 1e-10 {
                if memory.len() == HISTORY {
                    memory.pop_front();
                }
                scale = curvature / inner(&y, &y);
                memory.push_back((s, y, 1.0 / curvature));
            }
        }
        let d = direction(&g, &memory, scale);
        let first: f64 = if iteration == 0 { (1.0 / g.norm_l1()).min(1.0) } else { 1.0 };
        let slope = inner(&g, &d);
        if slope > -TOLERANCE {
            break;
        }
        // Along a line the loss is a parabola: one product gives all trials.
        let bent = product(&d);
        let line = Line { loss, slope, curvature: inner(&bent, &d) };
        let (t, trials) = line.search(first, d.norm_max());
        evaluations += trials;
        x += &d * faer::Scale(t);
        let old_g = g.clone();
        g += bent * faer::Scale(t);
        let before = loss;
        loss = line.at(t).0;
        let moved = d.norm_max() * t;
        if evaluations >= most_evaluations
            || moved.abs() <= TOLERANCE
            || (loss - before).abs() < TOLERANCE
        {
            break;
        }
        previous = Some((old_g, d, t));
    }
    Ok(Change { left: identity, right: x })
}

/// The two-loop recursion: the remembered steps' inverse Hessian, applied to the gradient,
/// downhill.
fn direction(g: &Mat<f64>, memory: &VecDeque<(Mat<f64>, Mat<f64>, f64)>, scale: f64) -> Mat<f64> {
    let mut q = g * faer::Scale(-1.0);
    let mut factors = Vec::with_capacity(memory.len());
    for (s, y, rho) in memory.iter().rev() {
        let factor = inner(s, &q) * rho;
        q -= y * faer::Scale(factor);
        factors.push(factor);
    }
    let mut r = q * faer::Scale(scale);
    for ((s, y, rho), factor) in memory.iter().zip(factors.into_iter().rev()) {
        let correction = inner(y, &r) * rho;
        r += s * faer::Scale(factor - correction);
    }
    r
}

/// The loss along a line: loss + slope t + curvature t^2 / 2.
struct Line {
    loss: f64,
    slope: f64,
    curvature: f64,
}

/// A point of the line: where, loss, slope.
type Point = (f64, f64, f64);

impl Line {
    fn at(&self, t: f64) -> (f64, f64) {
        (self.loss + t * (self.slope + 0.5 * t * self.curvature), self.slope + t * self.curvature)
    }

    fn point(&self, t: f64) -> Point {
        let (loss, slope) = self.at(t);
        (t, loss, slope)
    }

    fn too_high(&self, (t, loss, _): Point) -> bool {
        loss > self.loss + DECREASE * t * self.slope
    }

    fn flat(&self, point: Point) -> bool {
        point.2.abs() <= -CURVATURE * self.slope
    }

    /// A step that satisfies the strong Wolfe conditions (Nocedal and Wright, algorithms 3.5 and
    /// 3.6, with cubic interpolation), and the trials that it took.
    fn search(&self, first: f64, most: f64) -> (f64, usize) {
        let mut before: Point = (0.0, self.loss, self.slope);
        let mut now = self.point(first);
        let mut trials = 1;
        // Bracketing.
        let (mut low, mut high) = loop {
            let rising = trials > 2 && now.1 >= before.1;
            if self.too_high(now) || rising || now.2 >= 0.0 && !self.flat(now) {
                break if before.1 <= now.1 { (before, now) } else { (now, before) };
            }
            if self.flat(now) || trials > TRIALS {
                return (now.0, trials);
            }
            let bounds = (now.0 + 0.01 * (now.0 - before.0), now.0 * 10.0);
            let next = self.point(interpolate(before, now, bounds));
            before = now;
            now = next;
            trials += 1;
        };
        // Zoom.
        let mut slow = false;
        while trials <= TRIALS && (high.0 - low.0).abs() * most >= TOLERANCE {
            let (left, right) = (low.0.min(high.0), low.0.max(high.0));
            let (a, b) = if low.0 < high.0 { (low, high) } else { (high, low) };
            let mut t = interpolate(a, b, (left, right));
            let margin = 0.1 * (right - left);
            let near = (right - t).min(t - left) < margin;
            if near && (slow || t >= right || t <= left) {
                t = if (t - right).abs() < (t - left).abs() {
                    right - margin
                } else {
                    left + margin
                };
                slow = false;
            } else {
                slow = near;
            }
            let trial = self.point(t);
            trials += 1;
            if self.too_high(trial) || trial.1 >= low.1 {
                high = trial;
                if high.1 < low.1 {
                    std::mem::swap(&mut low, &mut high);
                }
            } else {
                let done = self.flat(trial);
                if !done && trial.2 * (high.0 - low.0) >= 0.0 {
                    high = low;
                }
                low = trial;
                if done {
                    break;
                }
            }
        }
        (low.0, trials)
    }
}

/// The minimum of the cubic through two points with their slopes, within bounds.
fn interpolate(a: Point, b: Point, (least, most): (f64, f64)) -> f64 {
    let (x1, f1, g1) = a;
    let (x2, f2, g2) = b;
    let d1 = g1 + g2 - 3.0 * (f1 - f2) / (x1 - x2);
    let square = d1 * d1 - g1 * g2;
    if square < 0.0 {
        return 0.5 * (least + most);
    }
    let d2 = square.sqrt();
    let t = match x1 <= x2 {
        true => x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2.0 * d2)),
        false => x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2.0 * d2)),
    };
    t.max(least).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_satisfy_the_strong_wolfe_conditions() {
        for (slope, curvature, first) in [
            (-1.0, 1.0, 1.0),
            (-1.0, 1e-3, 1.0),
            (-1e-3, 1e3, 1.0),
            (-5.0, 0.2, 0.01),
            (-2.0, 40.0, 1.0),
        ] {
            let line = Line { loss: 3.0, slope, curvature };
            let (t, trials) = line.search(first, 1.0);
            let point = line.point(t);
            assert!(
                !line.too_high(point) && line.flat(point),
                "{slope} {curvature} {first}: {t} after {trials}"
            );
        }
    }
}
