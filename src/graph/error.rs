//! What can go wrong while a graph is built, planned or run.

use super::parameter::ParameterError;
use super::{Graph, Tensor};

/// What can be wrong with a graph.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tensors that an operation does not take.
    #[error("{operation} in layer `{layer}`: {message}")]
    Shape {
        /// The operation's name.
        operation: &'static str,
        /// The layer's full name.
        layer: String,
        /// What is wrong.
        message: String,
    },
    /// A weight that is missing or of another shape.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// Values of another kind than an input's.
    #[error("input `{name}`: expected {expected}, found {found}")]
    Input {
        /// The input.
        name: String,
        /// What is right in its place.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The plan has no place for a tensor that a step reads.
    #[error("value {node} of layer `{layer}` has no place in memory: a fault of the plan")]
    Unplaced {
        /// The layer's full name.
        layer: String,
        /// Its number in the graph.
        node: usize,
    },
    /// A gradient was asked for along an input that has none.
    #[error("{operation} in layer `{layer}` has no gradient with respect to its {input}: {reason}")]
    NotDifferentiable {
        /// The operation's name.
        operation: &'static str,
        /// The layer's full name.
        layer: String,
        /// The input, as the operation calls it.
        input: &'static str,
        /// Why there is none.
        reason: &'static str,
    },
    /// A gradient of something that the loss does not depend on.
    #[error("{tensor} has no gradient: the differentiated output does not depend on it")]
    Independent {
        /// Its name, or its number.
        tensor: String,
    },
    /// Two inputs of one name.
    #[error("two inputs of the graph are called `{name}`: only one of them could be written")]
    DuplicateInput {
        /// The name.
        name: String,
    },
    /// An input that was not written before a run.
    #[error("input `{name}` was not given")]
    MissingInput {
        /// The input.
        name: String,
    },
}

impl Error {
    pub(crate) fn unplaced(graph: &Graph, tensor: Tensor) -> Error {
        Error::Unplaced { layer: graph.node(tensor).layer.to_string(), node: tensor.index() }
    }
}
