//! Checkpoints: every file dialect, translated at the border into one canonical naming,
//! memory-mapped and lazy.
//!
//! [`Checkpoint::open`] tells by its contents what a path is: a folder in diffusers' layout
//! (`diffusers`) or one file with CompVis's names (`single`, with `ldm` and `openclip` for the
//! names and `infer` for the configurations). Either way it gives [`Component`]s: a configuration,
//! and tensors under diffusers' names. A component's tensors are views into [`TensorFile`]s, which
//! are mapped and whose `header` is checked when they are opened. [`inspect`] describes any file;
//! [`write()`] makes one.
mod adapter;
mod base;
mod blocks;
mod component;
mod control;
mod describe;
mod diffusers;
mod dtype;
mod error;
mod export;
mod file;
mod folder;
mod gaps;
mod gguf;
mod hash;
mod header;
mod hub;
mod infer;
pub(crate) mod infinities;
pub mod inspect;
mod inversion;
mod ldm;
mod lora;
mod lora_settings;
mod model;
mod named;
mod network;
mod open;
mod openclip;
mod part;
mod pickle;
mod single;
mod small;
mod tensor;
#[cfg(test)]
mod tests;
mod to_ldm;
mod tower;
mod what;
mod whole;
mod write;

pub use crate::file_kind::{FileKind, read_text, text_of};
pub use adapter::adapter_files;
pub use base::base_hash_cache;
pub use component::Component;
pub use control::{Control, ControlKind};
pub(crate) use describe::STATE_KEY;
pub use dtype::DType;
pub use error::Error;
pub use export::{Exported, MODEL_TYPES, ModelFormat, export};
pub use file::TensorFile;
pub use folder::Folder;
pub use hash::ModelHash;
pub(crate) use inversion::WORD_KEY;
pub use inversion::{Embedding, embeddings, is_xl as is_xl_embedding, of_xl as xl_embeddings};
pub use lora::{Dialect, Family, Form, LoraReport};
pub use lora_settings::{LoraSettings, Scaling};
pub use model::{Checkpoint, Kind, SecondEncoder, TokenizerFiles};
pub use named::{SHIPPED, find};
pub use network::Network;
pub use single::CONFIG_METADATA;
pub use small::{open_tiny_vae, open_upscaler};
pub use tensor::TensorView;
pub use tower::{Tower, TowerKind};
pub(crate) use what::other_change;
pub(crate) use write::write_watched;
pub use write::{to_bytes, write};

/// How files and folders are written: whole or not at all.
pub mod output {
    pub use crate::output::*;
}
