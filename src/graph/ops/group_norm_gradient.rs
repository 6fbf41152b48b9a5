//! The gradient of group normalisation through its statistics, in two operations: two means of
//! every group, then their use.
//!
//! With g = dy * weight and n = (x - mean) * rstd: dx = rstd * (g - mean(g) - n mean(g n)), means
//! over the group.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// Of x, statistics, weight and dy: mean(g) and mean(g n) of every group, `[batch, groups, 2]`.
#[derive(Debug)]
pub(crate) struct GroupNormMeans;

/// Of x, statistics, weight, dy and the means: dx.
#[derive(Debug)]
pub(crate) struct GroupNormGradient;

impl Graph {
    /// The gradient of [`Graph::group_norm`] with respect to `x` where the `statistics` are `x`'s
    /// own.
    pub(super) fn group_norm_gradient(
        &mut self,
        x: Tensor,
        statistics: Tensor,
        weight: Tensor,
        dy: Tensor,
    ) -> Result<Tensor> {
        let means = self.apply(GroupNormMeans, &[x, statistics, weight, dy])?;
        self.apply(GroupNormGradient, &[x, statistics, weight, dy, means])
    }
}

fn check(x: &Shape, statistics: &Shape, weight: &Shape, dy: &Shape) -> Result<(), String> {
    let groups = statistics.get(1).copied().unwrap_or(0);
    let fits = x.len() > 2
        && groups > 0
        && x.channels().is_multiple_of(groups)
        && statistics[..] == [x[0], groups, 2];
    if !fits || weight[..] != [x.channels()] || x != dy {
        return Err(format!(
            "{x} with statistics {statistics}, weight {weight} and an upstream gradient {dy}"
        ));
    }
    Ok(())
}

/// For every element of x: its group's place among all groups, g and n.
fn elements<'a>(inputs: &[&'a Array]) -> impl Iterator<Item = (usize, f64, f64)> + use<'a> {
    let [x, statistics, weight, dy] = [inputs[0], inputs[1], inputs[2], inputs[3]];
    let (channels, per_batch, groups) =
        (x.shape.channels(), x.shape.elements() / x.shape[0], statistics.shape[1]);
    x.values().iter().zip(dy.values()).enumerate().map(move |(i, (&x, &dy))| {
        let (b, c) = (i / per_batch, i % channels);
        let slot = b * groups + c / (channels / groups);
        let [mean, rstd] = [0, 1].map(|part| f64::from(statistics.values()[slot * 2 + part]));
        (slot, f64::from(dy) * f64::from(weight.values()[c]), (f64::from(x) - mean) * rstd)
    })
}

impl Operation for GroupNormMeans {
    fn name(&self) -> &'static str {
        "group_norm_means"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, statistics, weight, dy] = arity(inputs)?;
        check(x, statistics, weight, dy)?;
        Ok(statistics.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let mut sums = vec![0.0f64; output.len()];
        for (slot, g, n) in elements(inputs) {
            sums[2 * slot] += g;
            sums[2 * slot + 1] += g * n;
        }
        let count = (inputs[0].shape.elements() / (shape[0] * shape[1])) as f64;
        for (y, sum) in output.iter_mut().zip(sums) {
            *y = (sum / count) as f32;
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        6 * inputs[0].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}

impl Operation for GroupNormGradient {
    fn name(&self) -> &'static str {
        "group_norm_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, statistics, weight, dy, means] = arity(inputs)?;
        check(x, statistics, weight, dy)?;
        if means != statistics {
            return Err(format!("statistics {statistics} with means {means}"));
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let (statistics, means) = (inputs[1].values(), inputs[4].values());
        for (dx, (slot, g, n)) in output.iter_mut().zip(elements(inputs)) {
            let [mean_g, mean_gn] = [0, 1].map(|part| f64::from(means[2 * slot + part]));
            *dx = (f64::from(statistics[2 * slot + 1]) * (g - mean_g - n * mean_gn)) as f32;
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        7 * inputs[0].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
