//! Group normalisation, in two operations: statistics of every group, then their use.

use super::{Fold, Operation, arity, padded_grid, vector_width};
use crate::gpu::{Params, Schedule, Value};
use crate::graph::lower::{Lowering, Work, spread};
use crate::graph::{Array, GradientContext, Graph, Origin, Result, Shape, Tensor, Traits};

#[derive(Debug)]
struct GroupNormStatistics {
    groups: usize,
    epsilon: f32,
}

#[derive(Debug)]
struct GroupNorm;

/// Parts into which a batch entry's rows are cut, so that even a small picture keeps a device busy.
pub(super) fn chunks(x: &Shape) -> usize {
    (x.rows() / x[0]).div_ceil(64).min(64)
}

impl Graph {
    /// Mean and 1/sqrt(variance + `epsilon`) of each batch entry's groups of channels: `x` is `[batch, .., channels]`, the
    /// output `[batch, groups, 2]`.
    pub fn group_norm_statistics(&mut self, x: Tensor, groups: usize, epsilon: f32) -> Result<Tensor> {
        self.apply(GroupNormStatistics { groups, epsilon }, &[x])
    }

    /// `(x - mean) * rstd * weight + bias`, with the `statistics` of [`Graph::group_norm_statistics`] and one weight and
    /// bias a channel.
    ///
    /// Its gradient goes through the statistics too, if they were computed from `x`: they themselves get none.
    pub fn group_norm(&mut self, x: Tensor, statistics: Tensor, weight: Tensor, bias: Tensor) -> Result<Tensor> {
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
            let members = || entry.chunks_exact(channels).flat_map(|row| &row[g * width..(g + 1) * width]).map(|&v| f64::from(v));
            let count = (per_batch / channels * width) as f64;
            let mean = members().sum::<f64>() / count;
            let variance = members().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
            statistics[0] = mean as f32;
            statistics[1] = (1.0 / (variance + f64::from(self.epsilon)).sqrt()) as f32;
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        3 * inputs[0].elements() as u64
    }

    fn scratch(&self, inputs: &[&Shape], _output: &Shape, _traits: &Traits) -> Option<usize> {
        let x = inputs[0];
        Some(x[0] * chunks(x) * x.channels() * 2)
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(context.refuse(graph, self, "input", "statistics are differentiated together with the norm that uses them"))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let x = lowering.input_shape(0).clone();
        let (batch, rows, channels) = (x[0], x.rows() / x[0], x.channels());
        let (chunks, vector) = (chunks(&x), vector_width(&[channels]));
        let partial = Work {
            kernel: "group_norm_partial",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![
                ("batch", batch.into()),
                ("rows", rows.into()),
                ("channels", (channels / vector).into()),
                ("chunks", chunks.into()),
            ],
            grid: spread((batch * chunks * channels / vector).div_ceil(64)),
            bindings: vec![("x", lowering.input(0)), ("partial", lowering.scratch())],
            flops: 3 * x.elements() as u64,
        };
        lowering.dispatch(partial, false);
        let combine = Work {
            kernel: "group_norm_statistics",
            params: Params::new(),
            uniforms: vec![
                ("groups", self.groups.into()),
                ("rows", rows.into()),
                ("channels", channels.into()),
                ("chunks", chunks.into()),
                ("epsilon", self.epsilon.into()),
            ],
            grid: [self.groups, batch, 1],
            bindings: vec![("partial", lowering.scratch()), ("y", lowering.output())],
            flops: 0,
        };
        lowering.dispatch(combine, false);
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
        if x.len() < 3 || x[0] != batch || x.channels() % groups != 0 || weight[..] != [x.channels()] || bias != weight {
            return Err(format!("{x} with statistics {statistics}, weight {weight} and bias {bias}"));
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        let x = &inputs[0];
        let (statistics, weight, bias) = (inputs[1].values(), inputs[2].values(), inputs[3].values());
        let (channels, per_batch, groups) = (x.shape.channels(), x.shape.elements() / x.shape[0], inputs[1].shape[1]);
        for (i, (y, &x)) in output.iter_mut().zip(x.values()).enumerate() {
            let (b, c) = (i / per_batch, i % channels);
            let slot = (b * groups + c / (channels / groups)) * 2;
            *y = (x - statistics[slot]) * statistics[slot + 1] * weight[c] + bias[c];
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        4 * inputs[0].elements() as u64
    }

    fn folds(&self) -> Fold {
        Fold::StagesAndPadding
    }

    fn scratch(&self, inputs: &[&Shape], _output: &Shape, _traits: &Traits) -> Option<usize> {
        Some(inputs[0][0] * inputs[0].channels() * 2)
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        let [x, statistics, weight, bias] = [context.inputs[0], context.inputs[1], context.inputs[2], context.inputs[3]];
        if context.wants(2) {
            return Err(context.refuse(graph, self, "weight", "norms are not trained"));
        }
        let mut dx = None;
        if context.wants(0) || context.wants(1) {
            let made = &graph.node(statistics).origin;
            let own = matches!(made, Origin::Operation { operation, inputs }
                if operation.name() == GroupNormStatistics::NAME && inputs[..] == [x]);
            if !own {
                return Err(context.refuse(graph, self, "input", "its statistics were not computed from that input"));
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

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let shape = lowering.shape().clone();
        let (batch, channels, groups) = (shape[0], shape.channels(), lowering.input_shape(1)[1]);
        let affine = Work {
            kernel: "group_norm_affine",
            params: Params::new(),
            uniforms: vec![("batch", batch.into()), ("channels", channels.into()), ("groups", groups.into())],
            grid: spread((batch * channels).div_ceil(64)),
            bindings: vec![
                ("statistics", lowering.input(1)),
                ("weight", lowering.input(2)),
                ("bias", lowering.input(3)),
                ("affine", lowering.scratch()),
            ],
            flops: 0,
        };
        lowering.dispatch(affine, false);
        let lanes = straight_lanes(lowering, channels);
        let vector = if lanes.is_some() { 1 } else { vector_width(&[channels]) };
        let mut work = Work {
            kernel: "group_norm",
            params: [("vector", Value::from(vector))].into(),
            uniforms: vec![("rows_per_entry", (shape.rows() / batch).into())],
            grid: [0; 3],
            bindings: vec![("x", lowering.input(0)), ("affine", lowering.scratch()), ("y", lowering.output())],
            flops: 4 * shape.elements() as u64,
        };
        let rows = padded_grid(&shape, lowering.step.padding, vector, &mut work);
        if let Some(lanes) = lanes {
            let vectors = (1..=MOST_VECTORS).rev().find(|vectors| channels.is_multiple_of(vectors * lanes)).unwrap_or(1);
            work.kernel = "group_norm_vectors";
            work.params.remove("vector");
            work.params.extend([("lanes", Value::from(lanes)), ("columns", Value::from(vectors))]);
            work.uniforms.push(("opaque", 0usize.into()));
            let planes = rows.div_ceil(MOST_WORKGROUPS);
            work.grid = [channels / (vectors * lanes), rows.div_ceil(planes.max(1)), planes];
        }
        lowering.dispatch(work, true);
    }
}

/// Vectors that a straight-line workgroup makes.
const MOST_VECTORS: usize = 8;
/// In one dimension.
const MOST_WORKGROUPS: usize = 65535;

/// Invocations of a subgroup, where straight-line code suits.
fn straight_lanes(lowering: &Lowering<'_>, channels: usize) -> Option<usize> {
    let Schedule::Vectors { lanes, least_flops } = lowering.traits.schedule else { return None };
    let elements = lowering.output().slice.size / 4;
    // Compiled once for each set of stages: it must come back, in smaller kernels than products.
    let suits = channels.is_multiple_of(lanes) && elements < 1 << 28 && least_flops / 100 <= elements;
    suits.then_some(lanes)
}
