//! Mix-of-Show on any graphics card, or on none: teach Stable Diffusion new concepts from a handful
//! of pictures, fuse many of them into one model, place each in its own region of a picture.
//!
//! - [`pipeline`]: from a [`Request`] to pictures; regions ([`region`]), concepts and control models
//!   are part of it.
//! - [`training`]: from pictures to a [`Concept`].
//! - [`fusion`]: from concepts to one model.
//! - [`metrics`]: how much pictures look like what was asked for.
//! - [`checkpoint`] and [`concept`]: files, of every program that is known.
//! - [`backend`]: where the work is done (wgpu's Vulkan, Metal or DirectX 12, or the processor), and
//!   [`graph`], which any of them runs: for kernels of one's own.
//!
//! Every long call tells its progress, and ends early when it is told to. Errors name the file, the
//! tensor or the option, what was expected and what was found.
//!
//! # Features
//! `cli` is the program `mos`, `tiny-model` the very small model that ships with it (23 MB),
//! `wgpu` and `cpu` are back ends. All are on unless `default-features = false`; a library without
//! `cli` has no parser of command lines.

pub mod backend;
pub mod checkpoint;
pub mod concept;
pub mod fusion;
pub mod graph;
pub mod metrics;
pub mod picture;
pub mod pipeline;
pub mod region;
pub mod training;

// What the rooms above are built of. Public for the program and the tests; nothing is promised.
#[doc(hidden)]
pub mod file_kind;
#[doc(hidden)]
pub mod models;
#[doc(hidden)]
pub mod nn;
#[doc(hidden)]
pub mod numbers;
#[doc(hidden)]
pub mod output;
#[doc(hidden)]
pub mod plainly;
#[doc(hidden)]
pub mod random;
#[doc(hidden)]
pub mod scheduler;
#[doc(hidden)]
pub mod sd;
#[doc(hidden)]
pub mod text;

pub use backend::{Device, Precision};
pub use checkpoint::Checkpoint;
pub use concept::{Applied, Concept};
pub use picture::Picture;
pub use pipeline::{Pipeline, Request};
