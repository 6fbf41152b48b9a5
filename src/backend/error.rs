//! What can go wrong between a graph and its result.

use crate::graph;

/// What can go wrong between a graph and its result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A graph that is wrong in itself, or weights that are.
    #[error(transparent)]
    Graph(#[from] graph::Error),
    /// The back end for graphics cards.
    #[cfg(feature = "wgpu")]
    #[error(transparent)]
    Wgpu(#[from] super::wgpu::Error),
    /// The processor's back end.
    #[cfg(feature = "cpu")]
    #[error(transparent)]
    Cpu(#[from] super::cpu::Error),
    /// A selection that fits no device.
    #[error("no adapter matches `{selector}`; there are: {available}")]
    NoMatch {
        /// As it was asked for.
        selector: String,
        /// Names and numbers of all devices.
        available: String,
    },
    /// What was asked for is of a back end that this build lacks.
    #[error("{what}: the back end is not part of this build (feature `{feature}` of mixofshow)")]
    NotCompiledIn {
        /// What was asked for.
        what: String,
        /// The feature of this crate that has it.
        feature: &'static str,
    },
    /// An operation that the back end has no kernel for.
    #[error(
        "{operation} in layer `{layer}` cannot run on {device}: only the reference implementation \
            computes it"
    )]
    NotImplemented {
        /// The operation's name.
        operation: &'static str,
        /// The layer's full name.
        layer: String,
        /// The device's name.
        device: String,
    },
    /// A weight that the back end wants from a file, rearranged.
    #[error(
        "{operation} in layer `{layer}`: its weight is an input or computed, where {device} wants \
            the rearranged weight of a file: \
         only LoRA's matmuls take any tensor as their weight"
    )]
    NotAParameter {
        /// The operation's name.
        operation: &'static str,
        /// The layer's full name.
        layer: String,
        /// The device's name.
        device: String,
    },
    /// A plan that was made for another device or graph.
    #[error(
        "{operation} in layer `{layer}`: the plan does not suit {device}: {problem}. Was it made \
            for another graph or device?"
    )]
    Unfit {
        /// The operation's name.
        operation: &'static str,
        /// The layer's full name.
        layer: String,
        /// The device's name.
        device: String,
        /// What does not fit.
        problem: String,
    },
    /// Weights that cannot be held in so few bytes, whatever comes and goes.
    #[error("{} MiB for weights are too few: {} would do", within >> 20, least.div_ceil(1 << 20))]
    TooFewBytes {
        /// What was given.
        within: u64,
        /// What would do.
        least: u64,
    },
    /// A copy between programs of two devices.
    #[error("a copy from a program of one device to that of another")]
    OtherDevice,
}

/// Of the calls of devices and programs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<graph::ParameterError> for Error {
    fn from(error: graph::ParameterError) -> Error {
        Error::Graph(error.into())
    }
}
