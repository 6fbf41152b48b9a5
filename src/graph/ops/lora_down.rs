//! Products with a matrix of few outputs, read as it lies: the inner half of a low-rank update,
//! forward and backward.
//!
//! Panels of 64 outputs suit large weights; a matrix of rank 4 would fill a sixteenth of one. Here
//! the lanes of a workgroup share the sum instead, so that no output is computed in vain, and the
//! matrix may be a parameter, an input or computed.

use super::conv2d::Conv2d;
use super::{Operation, arity};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

/// How the matrix lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LoraDown {
    /// `[out, in]`
    Rows,
    /// `[in, out]`
    Columns,
    /// `[out, in, kh, kw]`: a convolution.
    Window { stride: usize },
}

impl Graph {
    /// `y[.., n] = sum_k x[.., k] w[n, k]`, as [`Graph::linear`], for a `w` `[out, in]` of few
    /// outputs, which may be any tensor.
    pub fn lora_down(&mut self, x: Tensor, w: Tensor) -> Result<Tensor> {
        self.apply(LoraDown::Rows, &[x, w])
    }

    /// `y[.., n] = sum_k x[.., k] w[k, n]` for a `w` `[in, out]` of few outputs, which may be any
    /// tensor.
    pub fn lora_down_transposed(&mut self, x: Tensor, w: Tensor) -> Result<Tensor> {
        self.apply(LoraDown::Columns, &[x, w])
    }

    /// [`Graph::conv2d`] for a `w` `[out, in, kh, kw]` of few outputs, which may be any tensor.
    pub fn lora_down_conv2d(&mut self, x: Tensor, w: Tensor, stride: usize) -> Result<Tensor> {
        self.apply(LoraDown::Window { stride }, &[x, w])
    }
}

impl Operation for LoraDown {
    fn name(&self) -> &'static str {
        match self {
            LoraDown::Rows => "lora_down",
            LoraDown::Columns => "lora_down_transposed",
            LoraDown::Window { .. } => "lora_down_conv2d",
        }
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x, w] = arity(inputs)?;
        match (*self, &w[..]) {
            (LoraDown::Rows, &[out, into]) | (LoraDown::Columns, &[into, out])
                if into == x.channels() =>
            {
                Ok(x.with_channels(out))
            }
            (LoraDown::Rows, _) => {
                Err(format!("expected a matrix [out, {}], found {w}", x.channels()))
            }
            (LoraDown::Columns, _) => {
                Err(format!("expected a matrix [{}, out], found {w}", x.channels()))
            }
            (LoraDown::Window { stride }, _) => Conv2d { stride }.shape(inputs),
        }
    }

    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]) {
        let (n, k) = (shape.channels(), inputs[0].shape.channels());
        let w = inputs[1].values();
        let (of_output, of_input) = match self {
            LoraDown::Rows => (k, 1),
            LoraDown::Columns => (1, n),
            LoraDown::Window { stride } => {
                return Conv2d { stride: *stride }.evaluate(inputs, shape, output);
            }
        };
        for (y, x) in output.chunks_exact_mut(n).zip(inputs[0].values().chunks_exact(k)) {
            for (o, y) in y.iter_mut().enumerate() {
                let products =
                    x.iter().enumerate().map(|(i, x)| x * w[o * of_output + i * of_input]);
                *y = products.sum();
            }
        }
    }

    fn flops(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        let taps = inputs[1].elements() / output.channels().max(1);
        2 * (output.elements() * taps) as u64
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let ([x, w], dy) = ([context.inputs[0], context.inputs[1]], context.upstream);
        let dx = match self {
            _ if !context.wants(0) => None,
            LoraDown::Rows => Some(graph.lora_up_transposed(None, dy, w)?),
            LoraDown::Columns => Some(graph.lora_up(None, dy, w)?),
            LoraDown::Window { stride } => {
                let (height, width) = (graph.shape(x)[1], graph.shape(x)[2]);
                Some(graph.conv2d_transposed(dy, w, *stride, height, width)?)
            }
        };
        let dw = match self {
            _ if !context.wants(1) => None,
            LoraDown::Rows => Some(graph.linear_weight_gradient(x, dy)?),
            LoraDown::Columns => Some(graph.linear_weight_gradient(dy, x)?),
            LoraDown::Window { .. } => {
                return Err(context.refuse(
                    graph,
                    self,
                    "matrix",
                    "only low-rank updates of linear layers are trained",
                ));
            }
        };
        Ok(vec![dx, dw])
    }
}
