//! Sums of outer products of a tensor's rows: what least squares needs to know of a layer's inputs.

use super::{Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct OuterSums;

impl Graph {
    /// `sums + x^T x` over all rows of `x` `[.., n]`. `sums` is `[2, n, n]`: each sum is the sum of
    /// the two planes, which together keep about twice the digits of one f32 (Knuth's TwoSum
    /// between blocks of rows). Only elements whose column is at most their row are meant; the
    /// others may be anything. Made to be assigned back to `sums`, where it is done in place.
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
                let sum = x
                    .chunks_exact(n)
                    .fold(before, |sum, row| sum + f64::from(row[i]) * f64::from(row[j]));
                sums[at] = sum as f32;
                lost[at] = (sum - f64::from(sums[at])) as f32;
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        // Half of the square.
        (inputs[1].rows() * output[1] * (output[1] + 1)) as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }
}
