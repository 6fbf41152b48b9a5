//! Sums over what an operand was broadcast along, and the broadcast itself: each is the other's
//! gradient.

use super::{Broadcast, Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct SumTo(pub Shape);

#[derive(Debug)]
pub(crate) struct BroadcastTo(pub Shape);

/// The larger of two shapes that broadcast as `[outer, middle, inner]`; the smaller is
/// `[outer, inner]`.
pub(crate) struct Extents {
    pub outer: usize,
    pub middle: usize,
    pub inner: usize,
}

impl Extents {
    pub fn of(large: &Shape, small: &Shape) -> Extents {
        let (all, kept) = (large.elements(), small.elements());
        match Broadcast::of(large, small) {
            Ok(Broadcast::Batch { rows, channels }) => {
                Extents { outer: kept / channels.max(1), middle: rows, inner: channels }
            }
            _ => Extents { outer: 1, middle: all / kept.max(1), inner: kept },
        }
    }

    /// Parts in which sums are made first, so that few long sums keep a device busy too; 1 where
    /// there is enough to do.
    pub fn chunks(&self) -> usize {
        let wanted = 8192 / (self.outer * self.inner).max(1);
        wanted.min(self.middle / 16).clamp(1, 256)
    }
}

impl Graph {
    /// Sums `x` to `shape`, one of those that [`Graph::add`] broadcasts to `x`'s: each element is
    /// the sum of the elements of `x` that it would meet. `x` itself where the shapes agree.
    pub fn sum_to(&mut self, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if *self.shape(x) == shape {
            return Ok(x);
        }
        self.apply(SumTo(shape), &[x])
    }

    /// `x` repeated to `shape`, as [`Graph::add`] broadcasts its second operand.
    pub fn broadcast_to(&mut self, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if *self.shape(x) == shape {
            return Ok(x);
        }
        self.apply(BroadcastTo(shape), &[x])
    }

    /// The sum of all elements of `x`: `[1]`.
    pub fn sum(&mut self, x: Tensor) -> Result<Tensor> {
        self.sum_to(x, [1])
    }

    /// The mean of all elements of `x`: `[1]`.
    pub fn mean(&mut self, x: Tensor) -> Result<Tensor> {
        let count = self.shape(x).elements();
        let sum = self.sum(x)?;
        self.scale(sum, 1.0 / count.max(1) as f32)
    }
}

impl Operation for SumTo {
    fn name(&self) -> &'static str {
        "sum_to"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        Broadcast::of(x, &self.0).map_err(|_| format!("{x} cannot be summed to {}", self.0))?;
        Ok(self.0.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let Ok(broadcast) = Broadcast::of(&inputs[0].shape, shape) else { return };
        let mut sums = vec![0.0f64; output.len()];
        for (i, &x) in inputs[0].values().iter().enumerate() {
            sums[broadcast.index(i)] += f64::from(x);
        }
        for (y, sum) in output.iter_mut().zip(sums) {
            *y = sum as f32;
        }
    }

    fn flops(&self, inputs: &[&Shape], _output: &Shape) -> u64 {
        inputs[0].elements() as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let shape = graph.shape(context.inputs[0]).clone();
        Ok(vec![Some(graph.broadcast_to(context.upstream, shape)?)])
    }
}

impl Operation for BroadcastTo {
    fn name(&self) -> &'static str {
        "broadcast_to"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        Broadcast::of(&self.0, x)?;
        Ok(self.0.clone())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let Ok(broadcast) = Broadcast::of(shape, &inputs[0].shape) else { return };
        for (i, y) in output.iter_mut().enumerate() {
            *y = inputs[0].values()[broadcast.index(i)];
        }
    }

    fn flops(&self, _inputs: &[&Shape], _output: &Shape) -> u64 {
        0
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let shape = graph.shape(context.inputs[0]).clone();
        Ok(vec![Some(graph.sum_to(context.upstream, shape)?)])
    }
}
