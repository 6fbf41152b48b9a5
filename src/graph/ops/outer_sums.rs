//! Sums of outer products of a tensor's rows: what least squares needs to know of a layer's inputs.

use super::{Operation, arity, no_second_gradient, vector_width};
use crate::gpu::{Schedule, Value};
use crate::graph::lower::{Lowering, Work};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
struct OuterSums;

/// Rows that a kernel sums in f32 before it adds them up with compensation.
const BLOCK: usize = 64;
/// Rows of the sums in a register tile.
const TILE: usize = 8;

impl Graph {
    /// `sums + x^T x` over all rows of `x` `[.., n]`. `sums` is `[2, n, n]`: each sum is the sum of the two planes, which together
    /// keep about twice the digits of one f32 (Knuth's TwoSum between blocks of rows). Only elements whose column is at most
    /// their row are meant; the others may be anything. Made to be assigned back to `sums`, where it is done in place.
    pub fn outer_sums(&mut self, sums: Tensor, x: Tensor) -> Result<Tensor> {
        self.keep_precise();
        self.apply(OuterSums, &[sums, x])
    }
}

impl Operation for OuterSums {
    fn name(&self) -> &'static str {
        "outer_sums"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [sums, x] = arity(inputs)?;
        let n = x.channels();
        if sums[..] != [2, n, n] || x.is_empty() {
            return Err(format!("rows of {x} with sums {sums}: expected [2, {n}, {n}]"));
        }
        Ok(sums.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let n = shape[1];
        let (old, x) = (inputs[0].values(), inputs[1].values());
        let (sums, lost) = output.split_at_mut(n * n);
        for i in 0..n {
            for j in 0..=i {
                let at = i * n + j;
                let before = f64::from(old[at]) + f64::from(old[n * n + at]);
                let sum = x.chunks_exact(n).fold(before, |sum, row| sum + f64::from(row[i]) * f64::from(row[j]));
                sums[at] = sum as f32;
                lost[at] = (sum - f64::from(sums[at])) as f32;
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        // Half of the square.
        (inputs[1].rows() * output[1] * (output[1] + 1)) as u64
    }

    fn gradient(&self, graph: &mut Graph, context: &GradientContext<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        let (n, rows) = (lowering.shape()[1], lowering.input_shape(1).rows());
        let (from, to) = (lowering.input(0), lowering.output());
        if !lowering.is_in_place() {
            lowering.copy(from.slice, to.slice.clone());
        }
        let vector = vector_width(&[n]);
        let groups = match lowering.traits.schedule {
            Schedule::Staged | Schedule::Matrices(_) => 4,
            Schedule::Registers { .. } | Schedule::Passed | Schedule::Vectors { .. } => 1,
        };
        let work = Work {
            kernel: "outer_sums",
            params: [("vector", Value::from(vector)), ("groups", Value::from(groups)), ("block", Value::from(BLOCK))].into(),
            uniforms: vec![("rows", rows.into()), ("n", n.into()), ("channels", (n / vector).into()), ("one", 1.0f32.into())],
            grid: [(n / vector).div_ceil(16), n.div_ceil(TILE * groups), 1],
            bindings: vec![("x", lowering.input(1)), ("sums", to)],
            flops: (rows * n * (n + 1)) as u64,
        };
        lowering.dispatch(work, false);
    }
}
