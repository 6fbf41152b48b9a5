//! The back end for graphics cards: adapters, buffers, pipelines from `kernels/`, recordings, and
//! how each operation becomes dispatches. Knows no networks.

mod activations;
mod adapter;
mod buffer;
mod contract;
mod device;
mod error;
mod executable;
mod gradients;
mod halved;
mod host;
mod hosted;
mod kernel;
mod layout;
pub(crate) mod lower;
mod lowering;
mod matrices;
mod measured;
mod ops;
mod own;
mod packed;
mod pipelines;
mod program;
mod rates;
mod record;
mod seam;
mod spirv;
mod staging;
mod streamed;
mod template;
mod traits;
mod transposed;
mod trial;
mod tuned;
mod uses;
mod weights;

/// The crate `wgpu`, as this crate is built with it: for [`Host`], [`Selection::Noop`] and such.
pub use ::wgpu as api;
pub use activations::{ActivationUse, UnknownActivationUse};
pub use adapter::{AdapterReport, Selection, choose, list, select};
pub use buffer::{Buffer, Slice};
pub use device::{Gpu, Options};
pub use error::Error;
pub use executable::{Compilable, Executable, Statistic, StatisticValue, executables};
pub use hosted::Host;
pub use kernel::{Access, Binding, Kernel, Scalar, reflect};
pub use layout::{Held, Layout};
pub use lower::{BufferView, Storage, commands, preparation};
pub use matrices::{Blocks, Matrices, MatrixUse, Parts, UnknownMatrixUse};
pub use measured::{MeasuredSizes, TUNED_VARIABLE, sizes_file};
pub use own::{Mistake, render_own};
pub(crate) use own::{advice, nearest};
pub(crate) use packed::{packed, packed_blocks};
pub use record::{Command, Recording, Uniform};
pub use spirv::{ordered, written};
pub(crate) use template::kernel_place;
pub use template::{
    DECLARATIONS, KERNELS_VARIABLE, Params, Rendered, Value, kernel_names, kernel_text, render,
    replaced_kernels, unknown_kernels,
};
pub use traits::{Schedule, Traits};
pub use tuned::{
    AttentionMatricesSizes, AttentionSizes, GroupNormSizes, LoraDownSizes, LoraUpSizes,
    MatmulMatricesSizes, MatmulSizes, OuterSumsSizes, Tuned, WeightGradientSizes,
};
pub use weights::weight_bytes;

/// Of the calls of graphics devices.
pub type Result<T, E = Error> = std::result::Result<T, E>;
