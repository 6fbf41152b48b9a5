//! Group normalisation, in two operations: statistics of every group, then their use.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Origin, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct GroupNormStatistics {
    pub groups: usize,
    pub epsilon: f32,
}

#[derive(Debug)]
pub(crate) struct GroupNorm;

impl Graph {
    /// Mean and 1/sqrt(variance + `epsilon`) of each batch entry's groups of channels: `x` is
    /// `[batch, .., channels]`, the output `[batch, groups, 2]`.
    pub fn group_norm_statistics(
        &mut self,
        x: Tensor,
        groups: usize,
        epsilon: f32,
    ) -> Result<Tensor> {
        self.apply(GroupNormStatistics { groups, epsilon }, &[x])
    }

    /// `(x - mean) * rstd * weight + bias`, with the `statistics` of
    /// [`Graph::group_norm_statistics`] and one weight and bias a channel.
    ///
    /// Its gradient goes through the statistics too, if they were computed from `x`: they
    /// themselves get none.
    pub fn group_norm(
        &mut self,
        x: Tensor,
        statistics: Tensor,
        weight: Tensor,
        bias: Tensor,
    ) -> Result<Tensor> {
        self.apply(GroupNorm, &[x, statistics, weight, bias])
    }
}

impl GroupNormStatistics {
    const NAME: &str = "group_norm_statistics";
}

impl Operation for GroupNormStatistics {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        if x.len() < 3 || self.groups == 0 || x.channels() % self.groups != 0 {
            return Err(format!("the channels of {x} do not make {} groups", self.groups));
        }
        Ok([x[0], self.groups, 2].into())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let x = &inputs[0];
        let (channels, per_batch) = (x.shape.channels(), x.shape.elements() / x.shape[0]);
        let width = channels / self.groups;
        for (slot, statistics) in output.chunks_exact_mut(2).enumerate() {
            let (b, g) = (slot / self.groups, slot % self.groups);
            let entry = &x.values()[b * per_batch..(b + 1) * per_batch];
            let members = || {
                entry
                    .chunks_exact(channels)
                    .flat_map(|row| &row[g * width..(g + 1) * width])
                    .map(|&v| f64::from(v))
            };
            let count = (per_batch / channels * width) as f64;
            let mean = members().sum::<f64>() / count;
            let variance = members().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
            statistics[0] = mean as f32;
            statistics[1] = (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32;
        }
    }

    fn reads_totals(&self) -> bool {
        true
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        3 * inputs[0].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(context.refuse(
            graph,
            self,
            "input",
            "statistics are differentiated together with the norm that uses them",
        ))
    }
}

impl Operation for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, statistics, weight, bias] = arity(inputs)?;
        let [batch, groups, 2] = statistics[..] else {
            return Err(format!("expected statistics [batch, groups, 2], found {statistics}"));
        };
        if x.len() < 3
            || x[0] != batch
            || x.channels() % groups != 0
            || weight[..] != [x.channels()]
            || bias != weight
        {
            return Err(format!(
                "{x} with statistics {statistics}, weight {weight} and bias {bias}"
            ));
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let x = &inputs[0];
        let (statistics, weight, bias) =
            (inputs[1].values(), inputs[2].values(), inputs[3].values());
        let (channels, per_batch, groups) =
            (x.shape.channels(), x.shape.elements() / x.shape[0], inputs[1].shape[1]);
        for (i, (y, &x)) in output.iter_mut().zip(x.values()).enumerate() {
            let (b, c) = (i / per_batch, i % channels);
            let slot = (b * groups + c / (channels / groups)) * 2;
            *y = (x - statistics[slot]) * statistics[slot + 1] * weight[c] + bias[c];
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        4 * inputs[0].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let [x, statistics, weight, bias] =
            [context.inputs[0], context.inputs[1], context.inputs[2], context.inputs[3]];
        if context.wants(2) {
            return Err(context.refuse(graph, self, "weight", "norms are not trained"));
        }
        let mut dx = None;
        if context.wants(0) || context.wants(1) {
            let made = &graph.node(statistics).origin;
            let own = matches!(made, Origin::Operation { operation, inputs }
                if operation.name() == GroupNormStatistics::NAME && inputs[..] == [x]);
            if !own {
                return Err(context.refuse(
                    graph,
                    self,
                    "input",
                    "its statistics were not computed from that input",
                ));
            }
            dx = Some(graph.group_norm_gradient(x, statistics, weight, context.upstream)?);
        }
        let mut db = None;
        if context.wants(3) {
            let shape = graph.shape(bias).clone();
            db = Some(graph.sum_to(context.upstream, shape)?);
        }
        Ok(vec![dx, None, None, db])
    }
}
