//! Zero padding of a feature map.

use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Origin, Result, Shape, Tensor};

#[derive(Debug)]
pub(crate) struct Pad2d {
    /// top, bottom, left, right
    pub edges: [usize; 4],
}

impl Graph {
    /// Zeros around `x` `[batch, height, width, channels]`: `edges` are top, bottom, left, right.
    pub fn pad2d(&mut self, x: Tensor, edges: [usize; 4]) -> Result<Tensor> {
        self.apply(Pad2d { edges }, &[x])
    }

    /// The part of the feature map `x` that starts at `first` (line, column) and has `size`
    /// (height, width).
    pub fn crop(&mut self, x: Tensor, first: [usize; 2], size: [usize; 2]) -> Result<Tensor> {
        if let Some(part) = self.cropped(x, first, size)? {
            return Ok(part);
        }
        let mut part = x;
        for axis in [1, 2] {
            let (start, length) = (first[axis - 1], size[axis - 1]);
            if self.shape(part).get(axis) != Some(&length) {
                part = self.slice(part, axis, start, length)?;
            }
        }
        Ok(part)
    }

    /// [`Graph::crop`] of what is computed from a padded feature map: the padding is made smaller
    /// instead.
    fn cropped(
        &mut self,
        x: Tensor,
        first: [usize; 2],
        size: [usize; 2],
    ) -> Result<Option<Tensor>> {
        let whole = self.shape(x).clone();
        let Origin::Operation { operation, inputs } = &self.node(x).origin else { return Ok(None) };
        let (operation, mut inputs) = (operation.clone(), inputs.clone());
        let (Some(&from), true) = (inputs.first(), operation.can_crop()) else { return Ok(None) };
        let Origin::Operation { operation: padding, inputs: padded } = &self.node(from).origin
        else {
            return Ok(None);
        };
        let (Some(edges), &[inner]) = (padding.as_padding(), &padded[..]) else { return Ok(None) };
        let cut = [(first[0], size[0], whole[1]), (first[1], size[1], whole[2])];
        let cut =
            cut.map(|(start, length, whole)| Some([start, whole.checked_sub(start + length)?]));
        let [Some([top, bottom]), Some([left, right])] = cut else { return Ok(None) };
        let less = |i: usize, by: usize| edges[i].checked_sub(by);
        let (Some(top), Some(bottom), Some(left), Some(right)) =
            (less(0, top), less(1, bottom), less(2, left), less(3, right))
        else {
            return Ok(None);
        };
        if [top, bottom, left, right] == edges {
            return Ok(Some(x));
        }
        inputs[0] = match [top, bottom, left, right] {
            [0, 0, 0, 0] => inner,
            edges => self.pad2d(inner, edges)?,
        };
        Ok(Some(self.repeat(operation, &inputs)?))
    }
}

impl Operation for Pad2d {
    fn name(&self) -> &'static str {
        "pad2d"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [batch, height, width, channels] = arity::<1>(inputs)?[0].image()?;
        let [top, bottom, left, right] = self.edges;
        Ok([batch, height + top + bottom, width + left + right, channels].into())
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let x = &inputs[0];
        let (height, width, channels) = (x.shape[1], x.shape[2], x.shape[3]);
        let [top, _, left, _] = self.edges;
        output.fill(0.0);
        for (line, values) in x.values().chunks_exact(width * channels).enumerate() {
            let (b, y) = (line / height, line % height);
            let at = ((b * shape[1] + y + top) * shape[2] + left) * channels;
            output[at..at + values.len()].copy_from_slice(values);
        }
    }

    fn as_padding(&self) -> Option<[usize; 4]> {
        Some(self.edges)
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let [top, _, left, _] = self.edges;
        let shape = graph.shape(context.inputs[0]);
        let (height, width) = (shape[1], shape[2]);
        let dx = graph.crop(context.upstream, [top, left], [height, width])?;
        Ok(vec![Some(dx)])
    }
}
