//! The back end for graphics cards: adapters, buffers, pipelines from `kernels/`, recordings, and
//! how each operation becomes dispatches. Knows no networks.

mod adapter;
mod buffer;
mod device;
mod error;
mod kernel;
mod layout;
pub mod lower;
mod matrices;
mod ops;
mod program;
mod record;
mod template;
mod transposed;
mod unbounded;
mod weights;

pub use adapter::{AdapterReport, PASSING_LANES, Schedule, Selection, choose, list, select};
pub use buffer::{Buffer, Slice};
pub use device::{Gpu, Options, Traits};
pub use error::Error;
pub use kernel::{Access, Binding, Kernel, Scalar, reflect};
pub use layout::Layout;
pub use matrices::{Blocks, Matrices, MatrixUse, Parts, UnknownMatrixUse};
pub use record::{Command, Recording, Uniform};
pub use template::{
    KERNELS_VARIABLE, Params, ReplacedKernel, Value, kernel_names, render, replaced_kernels,
};
pub use weights::weight_bytes;

pub type Result<T, E = Error> = std::result::Result<T, E>;
