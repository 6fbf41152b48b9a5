//! The operations, one to a file: builder, shape rule, reference implementation, gradient, and the
//! kernels that can run it.

pub(crate) mod activation;
pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod attention_gradient;
pub(crate) mod average_pool;
pub(crate) mod binary;
pub(crate) mod concat;
pub(crate) mod conv2d;
pub(crate) mod conv2d_transposed;
pub(crate) mod embedding;
pub(crate) mod filled;
pub(crate) mod geglu;
pub(crate) mod group_norm;
pub(crate) mod group_norm_gradient;
pub(crate) mod guidance;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod linear_gradient;
pub(crate) mod lora_down;
pub(crate) mod lora_gate;
pub(crate) mod lora_up;
pub(crate) mod mix;
pub(crate) mod normalize_by_max;
pub(crate) mod outer_sums;
pub(crate) mod pad2d;
pub(crate) mod regional_attention;
pub(crate) mod reshape;
pub(crate) mod scale;
pub(crate) mod slice;
pub(crate) mod sum_to;
pub(crate) mod upsample;

use std::any::Any;
use std::fmt::Debug;

pub use activation::Function;
pub use adamw::{Moments, RATES};
pub(crate) use binary::Broadcast;
pub use lora_gate::GatePart;
pub use regional_attention::{Reach, RegionInputs, RegionTables};

use super::{Array, Error, Graph, Shape, Tensor};

/// What an operation's gradient rule sees of the node that it differentiates.
#[derive(Clone, Copy, Debug)]
pub struct GradientContext<'a> {
    /// The node's own value.
    pub output: Tensor,
    /// What the operation was given.
    pub inputs: &'a [Tensor],
    /// Gradient with respect to `output`, of its shape.
    pub upstream: Tensor,
    /// For each input: whether its gradient leads to anything that was asked for.
    pub wanted: &'a [bool],
}

impl GradientContext<'_> {
    /// Whether the gradient along this input is asked for.
    pub fn wants(&self, input: usize) -> bool {
        self.wanted.get(input).copied().unwrap_or(false)
    }

    /// The error for a gradient that there is no rule for; `input` as the operation's documentation
    /// calls it.
    pub fn refuse(
        &self,
        graph: &Graph,
        operation: &dyn Operation,
        input: &'static str,
        reason: &'static str,
    ) -> Error {
        let layer = graph.node(self.output).layer.to_string();
        Error::NotDifferentiable { operation: operation.name(), layer, input, reason }
    }
}

/// What followers a step can do to its result before it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Nothing: its result is stored as it is.
    Nothing,
    /// Elementwise work, reading tensors of the result's shape or broadcast to it.
    Elementwise,
    /// Elementwise work, then zeros around the feature map.
    ElementwiseAndPadding,
    /// A LoRA's up-projection, then elementwise work: operations that sum over inputs.
    LoraAndElementwise,
}

/// Work on a result that is still in registers.
#[derive(Clone, Debug)]
pub enum Epilogue {
    /// A function of each element.
    Function(Function),
    /// A factor for all.
    Scale(f32),
    /// Adds a tensor.
    Add(Tensor, Broadcast),
    /// Multiplies by a tensor.
    Multiply(Tensor, Broadcast),
    /// The function's derivative at the tensor's elements, times the value.
    Derivative(Function, Tensor),
    /// Adds `hidden` `[rows, rank]` times `up` `[channels, rank]`, or `[rank, channels]` if
    /// `transposed`. Always the first.
    Lora {
        /// What the down-projection made.
        hidden: Tensor,
        /// The up-projection's matrix.
        up: Tensor,
        /// `up` is `[rank, channels]`.
        transposed: bool,
    },
    /// The first half of the channels times gelu of the second: half of them are stored. Always the
    /// last, after sums alone.
    Geglu,
}

impl Epilogue {
    /// The tensors that the entry reads.
    pub fn operands(&self) -> impl Iterator<Item = Tensor> + use<> {
        let lora = match self {
            Epilogue::Lora { hidden, up, .. } => [Some(*hidden), Some(*up)],
            _ => [None, None],
        };
        self.operand().into_iter().chain(lora.into_iter().flatten())
    }

    /// The tensor that an elementwise entry reads.
    pub fn operand(&self) -> Option<Tensor> {
        match self {
            Epilogue::Add(t, _) | Epilogue::Multiply(t, _) | Epilogue::Derivative(_, t) => Some(*t),
            Epilogue::Function(_)
            | Epilogue::Scale(_)
            | Epilogue::Lora { .. }
            | Epilogue::Geglu => None,
        }
    }

    pub(crate) fn broadcast(&self) -> Option<Broadcast> {
        match self {
            Epilogue::Add(_, broadcast) | Epilogue::Multiply(_, broadcast) => Some(*broadcast),
            Epilogue::Function(_)
            | Epilogue::Scale(_)
            | Epilogue::Derivative(..)
            | Epilogue::Lora { .. }
            | Epilogue::Geglu => None,
        }
    }
}

/// A node's computation. Operations know nothing of names, files or models.
pub trait Operation: Any + Debug + Send + Sync {
    /// As errors, profiles and benches call it.
    fn name(&self) -> &'static str;

    /// The output's shape, or a message that says what was expected and what was found.
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String>;

    /// The reference implementation: fills `output` (of `shape`, row-major) from inputs whose
    /// shapes [`Operation::shape`] accepted.
    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]);

    /// Useful floating-point operations (a multiply-add counts two).
    fn flops(&self, _inputs: &[&Shape], output: &Shape) -> u64 {
        output.elements() as u64
    }

    /// Appends the operations that compute the gradients with respect to the inputs that `context`
    /// wants, from the one with respect to the output: one entry for each input. None where nothing
    /// flows to an input, or where it is not wanted.
    fn gradient(
        &self,
        graph: &mut Graph,
        context: &GradientContext<'_>,
    ) -> Result<Vec<Option<Tensor>>, Error>;

    /// This operation as a entry of the one that made its input `position`.
    fn as_epilogue(
        &self,
        _inputs: &[Tensor],
        _position: usize,
        _graph: &Graph,
    ) -> Option<Epilogue> {
        None
    }

    /// This operation as padding written by the one that made its input: top, bottom, left, right.
    fn as_padding(&self) -> Option<[usize; 4]> {
        None
    }

    /// Whether this is the gated unit that the operation before it may make at once
    /// ([`Epilogue::Geglu`]).
    fn is_gate(&self) -> bool {
        false
    }

    /// Whether this reads of input 0 nothing but the means and squared deviations of channels, which
    /// the operation before it may sum up while it stores ([`Target::totals`](super::Target)).
    fn reads_totals(&self) -> bool {
        false
    }

    /// Each pixel of the output is made of a window of input 0 that moves with it a pixel at a
    /// time: a part of that feature map makes a part of the output.
    fn can_crop(&self) -> bool {
        false
    }

    /// What this operation computes plus `base`, where one operation does both: gradients that
    /// arrive by two ways are added so.
    fn plus(
        &self,
        _graph: &mut Graph,
        _inputs: &[Tensor],
        _base: Tensor,
    ) -> Option<Result<Tensor, Error>> {
        None
    }

    /// The output is the first input's storage under another shape.
    fn is_view(&self) -> bool {
        false
    }

    /// The input that the output may replace in its own storage, each element from what stood
    /// there: an operation whose kernels add to what they find. Done where the input takes the
    /// output's value after the run ([`Graph::assign`]).
    fn in_place(&self) -> Option<usize> {
        None
    }
}

/// The gradient rule of operations that are part of a backward pass themselves.
pub(crate) fn no_second_gradient(
    operation: &dyn Operation,
    graph: &Graph,
    context: &GradientContext<'_>,
) -> Error {
    context.refuse(
        graph,
        operation,
        "inputs",
        "it is part of a backward pass, which cannot be differentiated again",
    )
}

/// The `N` shapes that an operation takes, or a message.
pub(crate) fn arity<'a, const N: usize>(inputs: &[&'a Shape]) -> Result<[&'a Shape; N], String> {
    <[&Shape; N]>::try_from(inputs).map_err(|_| format!("takes {N} inputs, found {}", inputs.len()))
}
