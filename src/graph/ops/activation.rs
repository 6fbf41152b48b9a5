//! Elementwise functions.

use super::{Epilogue, Operation, arity, no_second_gradient};
use crate::graph::{Array, GradientContext, Graph, Result, Shape, Tensor};

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
    /// The greater of x and 0.
    Relu,
    /// The exponential.
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

    /// Its value at `x`.
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

    /// The derivative at `x`; that of [`Function::Relu`] is 0 at 0.
    pub fn derivative(self, x: f32) -> f32 {
        let x = f64::from(x);
        let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
        let y = match self {
            Function::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
            Function::Gelu => {
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)) + x * density
            }
            Function::GeluTanh => {
                let factor = (2.0 / std::f64::consts::PI).sqrt();
                let tanh = (factor * (x + 0.044715 * x * x * x)).tanh();
                0.5 * (1.0 + tanh)
                    + 0.5 * x * (1.0 - tanh * tanh) * factor * (1.0 + 3.0 * 0.044715 * x * x)
            }
            Function::QuickGelu => {
                let s = sigmoid(1.702 * x);
                s * (1.0 + 1.702 * x * (1.0 - s))
            }
            Function::Relu => f64::from(x > 0.0),
            Function::Exp => x.exp(),
        };
        y as f32
    }
}

#[derive(Debug)]
pub(crate) struct Activation(pub Function);

/// Of dy and x: the function's derivative at x, times dy.
#[derive(Debug)]
pub(crate) struct ActivationGradient(pub Function);

impl Graph {
    /// `function` of every element.
    pub fn activation(&mut self, x: Tensor, function: Function) -> Result<Tensor> {
        self.apply(Activation(function), &[x])
    }

    /// x times its sigmoid, elementwise (Elfwing et al. 2018).
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

    fn as_epilogue(
        &self,
        _inputs: &[Tensor],
        _position: usize,
        _graph: &Graph,
    ) -> Option<Epilogue> {
        Some(Epilogue::Function(self.0))
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        let inputs = [context.upstream, context.inputs[0]];
        Ok(vec![Some(graph.apply(ActivationGradient(self.0), &inputs)?)])
    }
}

impl Operation for ActivationGradient {
    fn name(&self) -> &'static str {
        "activation_gradient"
    }

    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let [dy, x] = arity(inputs)?;
        if x != dy {
            return Err(format!("{x} with an upstream gradient {dy}"));
        }
        Ok(x.clone())
    }

    fn evaluate(&self, inputs: &[&Array], _shape: &Shape, output: &mut [f32]) {
        for (dx, (dy, &x)) in
            output.iter_mut().zip(inputs[0].values().iter().zip(inputs[1].values()))
        {
            *dx = self.0.derivative(x) * dy;
        }
    }

    fn flops(&self, _inputs: &[&Shape], output: &Shape) -> u64 {
        10 * output.elements() as u64
    }

    fn as_epilogue(&self, inputs: &[Tensor], position: usize, _graph: &Graph) -> Option<Epilogue> {
        (position == 0).then(|| Epilogue::Derivative(self.0, inputs[1]))
    }

    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>> {
        Err(no_second_gradient(self, graph, context))
    }
}
