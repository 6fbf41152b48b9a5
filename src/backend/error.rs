//! What can go wrong between a graph and its result.

use crate::graph;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Graph(#[from] graph::Error),
    #[cfg(feature = "wgpu")]
    #[error(transparent)]
    Wgpu(#[from] super::wgpu::Error),
    #[cfg(feature = "cpu")]
    #[error(transparent)]
    Cpu(#[from] super::cpu::Error),
    #[error("no adapter matches `{selector}`; there are: {available}")]
    NoMatch { selector: String, available: String },
    #[error("{what}: the back end is not part of this build (feature `{feature}` of mixofshow)")]
    NotCompiledIn { what: String, feature: &'static str },
    #[error(
        "{operation} in layer `{layer}` cannot run on {device}: only the reference implementation \
            computes it"
    )]
    NotImplemented { operation: &'static str, layer: String, device: String },
    #[error(
        "{operation} in layer `{layer}`: its weight is an input or computed, where {device} wants \
            the rearranged weight of a file: \
         only LoRA's matmuls take any tensor as their weight"
    )]
    NotAParameter { operation: &'static str, layer: String, device: String },
    #[error(
        "{operation} in layer `{layer}`: the plan does not suit {device}: {problem}. Was it made \
            for another graph or device?"
    )]
    Unfit { operation: &'static str, layer: String, device: String, problem: String },
    #[error("a copy from a program of one device to that of another")]
    OtherDevice,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<graph::ParameterError> for Error {
    fn from(error: graph::ParameterError) -> Error {
        Error::Graph(error.into())
    }
}
