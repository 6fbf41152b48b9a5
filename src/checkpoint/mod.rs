//! Checkpoints: every file dialect, translated at the border into one canonical naming, memory-mapped and lazy.
mod component;
mod diffusers;
mod error;
mod file;
mod folder;
mod header;
mod infer;
mod ldm;
mod model;
mod openclip;
mod single;
mod tensor;

pub use component::Component;
pub use error::Error;
pub use file::TensorFile;
pub use folder::Folder;
pub use model::{Checkpoint, Kind, TokenizerFiles};
pub use single::CONFIG_METADATA;
pub use tensor::{DType, TensorView};
