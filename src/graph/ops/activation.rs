//! Elementwise functions.

use super::{Fold, Operation, Stage, arity, lower_elementwise};
use crate::graph::lower::Lowering;
use crate::graph::{Array, Graph, Result, Shape, Tensor};

/// An elementwise function of one variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Function {
    /// x * sigmoid(x)
    Silu,
    /// x * Phi(x), with the error function
    Gelu,
    /// the tanh approximation of [`Function::Gelu`]
    GeluTanh,
    /// x * sigmoid(1.702 x), CLIP's own
    QuickGelu,
    Relu,
    Exp,
}

impl Function {
    /// As kernels spell it.
    pub fn name(self) -> &'static str {
        match self {
            Function::Silu => "silu",
            Function::Gelu => "gelu",
            Function::GeluTanh => "gelu_tanh",
            Function::QuickGelu => "quick_gelu",
            Function::Relu => "relu",
            Function::Exp => "exp",
        }
    }

    pub fn apply(self, x: f32) -> f32 {
        let x = f64::from(x);
        let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
        let y = match self {
            Function::Silu => x * sigmoid(x),
            Function::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Function::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Function::QuickGelu => x * sigmoid(1.702 * x),
            Function::Relu => x.max(0.0),
            Function::Exp => x.exp(),
        };
        y as f32
    }
}

#[derive(Debug)]
struct Activation(Function);

impl Graph {
    /// `function` of every element.
    pub fn activation(&mut self, x: Tensor, function: Function) -> Result<Tensor> {
        self.apply(Activation(function), &[x])
    }

    pub fn silu(&mut self, x: Tensor) -> Result<Tensor> {
        self.activation(x, Function::Silu)
    }
}

impl Operation for Activation {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [x] = arity(inputs)?;
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        for (y, &x) in output.iter_mut().zip(inputs[0].values()) {
            *y = self.0.apply(x);
        }
    }

    fn folds(&self) -> Fold {
        Fold::StagesAndPadding
    }

    fn as_stage(&self, _inputs: &[Tensor], _position: usize, _graph: &Graph) -> Option<Stage> {
        Some(Stage::Function(self.0))
    }

    fn lower(&self, lowering: &mut Lowering<'_>) {
        lower_elementwise(lowering);
    }
}
