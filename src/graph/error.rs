//! What can go wrong while a graph is built, planned or run.

use super::parameter::ParameterError;
use super::{Graph, Tensor};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{operation} in layer `{layer}`: {message}")]
    Shape { operation: &'static str, layer: String, message: String },
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error("input `{name}`: expected {expected}, found {found}")]
    Input { name: String, expected: String, found: String },
    #[error("value {node} of layer `{layer}` has no place in memory: a fault of the plan")]
    Unplaced { layer: String, node: usize },
    #[error("{operation} in layer `{layer}` has no gradient with respect to its {input}: {reason}")]
    NotDifferentiable {
        operation: &'static str,
        layer: String,
        input: &'static str,
        reason: &'static str,
    },
    #[error("{tensor} has no gradient: the differentiated output does not depend on it")]
    Independent { tensor: String },
    #[error("two inputs of the graph are called `{name}`: only one of them could be written")]
    DuplicateInput { name: String },
    #[error("input `{name}` was not given")]
    MissingInput { name: String },
}

impl Error {
    pub(crate) fn unplaced(graph: &Graph, tensor: Tensor) -> Error {
        Error::Unplaced { layer: graph.node(tensor).layer.to_string(), node: tensor.index() }
    }
}
