//! The device: choosing an adapter, buffers, pipelines from `kernels/`, recording, timing. Knows no mathematics.

mod adapter;
mod buffer;
mod device;
mod error;
mod kernel;
mod matrices;
mod record;
mod template;
mod unbounded;

pub use adapter::{AdapterReport, PASSING_LANES, Schedule, Selection, choose, list, select};
pub use buffer::{Buffer, Slice};
pub use device::{Gpu, Options};
pub use error::Error;
pub use kernel::{Access, Binding, Kernel, Scalar, reflect};
pub use matrices::{Blocks, Matrices, MatrixUse, Parts, UnknownMatrixUse};
pub use record::{Command, Cost, Recording, Uniform};
pub use template::{KERNELS_VARIABLE, Params, ReplacedKernel, Value, kernel_names, render, replaced_kernels};

pub type Result<T, E = Error> = std::result::Result<T, E>;
