//! Mix-of-Show (NeurIPS 2023) on any graphics card, or on none: teach Stable Diffusion people,
//! things and styles from a handful of pictures, fuse many of them into one model, and place each
//! in its own region of a picture, at the price of one pass. Networks, gradients and samplers run
//! on kernels of this crate's own; nothing else has to be installed.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use mixofshow::region::{Layout, Region};
//! use mixofshow::{Checkpoint, Device, Pipeline, Precision, Request};
//!
//! # #[cfg(all(feature = "tiny-model", any(feature = "cpu", feature = "wgpu")))]
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The best graphics card, else the processor.
//!     let device = Device::best()?;
//!     // The small model that ships, or `Checkpoint::open("sd15.safetensors".as_ref())?`.
//!     let model = Checkpoint::shipped()?;
//!     let mut pipeline = Pipeline::load(&device, &model, Precision::AsStored)?;
//!     let regions = ["0,0,.5,1: a red cat", ".5,0,1,1: a blue dog"];
//!     let request = Request {
//!         prompt: "a photo of a cat and a dog in the snow".into(),
//!         regions: Layout {
//!             regions: regions.map(Region::parse).into_iter().collect::<Result<_, _>>()?,
//!             ..Layout::default()
//!         },
//!         width: Some(64),
//!         height: Some(64),
//!         steps: 2,
//!         ..Request::default()
//!     };
//!     let made = pipeline.generate(&request, &mut |at| {
//!         println!("{} {}/{}", at.stage, at.done, at.of);
//!         ControlFlow::Continue(()) // `Break(())` ends it
//!     })?;
//! #   let folder = tempfile::tempdir()?;
//! #   std::env::set_current_dir(folder.path())?;
//!     made.pictures[0].save("snow.png", None)?;
//!     Ok(())
//! }
//! # #[cfg(not(all(feature = "tiny-model", any(feature = "cpu", feature = "wgpu"))))]
//! # fn main() {}
//! ```
//!
//! More programs stand in `examples/`: pictures with settings, two regions with a LoRA each,
//! teaching and fusing, a kernel of one's own. What they print is in `docs/library.md`.
//!
//! # What there is
//!
//! - [`pipeline`]: from a [`Request`] to pictures. A [`Pipeline`] is a model on a device; requests
//!   have prompts, [`region`]s, concepts, pictures to start from and networks that steer.
//! - [`concept`]: a [`Concept`] is new words and a LoRA, read from files of every program that is
//!   known; an [`Applied`] one is in use, at some strength.
//! - [`training`]: from pictures to a [`Concept`]: [`training::Run`].
//! - [`fusion`]: from concepts to one model: [`fusion::fuse`].
//! - [`metrics`]: how much pictures look like what was asked for.
//! - [`checkpoint`]: a [`Checkpoint`] is a whole model, opened from a folder or a file of any
//!   layout.
//! - `server`: the same over HTTP, for programs that speak web UIs' or OpenAI's API, and for people
//!   in a browser (feature `server`).
//! - [`picture`]: a [`Picture`], its files, and the settings in them.
//!
//! These stand on lower levels, which are public for who builds networks or kernels of his own:
//! [`backend`] (a [`Device`] runs what is planned: wgpu's Vulkan, Metal or DirectX 12, or the
//! processor), [`graph`] (tensors, operations, gradients, plans), [`models`] (networks as graphs),
//! [`scheduler`] (noise schedules and samplers), `workbench` (kernels in WGSL checked, measured and
//! tuned).
//!
//! # Long calls
//!
//! Every long call takes a [`Watch`]: a closure that is told how far it is, and answers whether to
//! go on. After [`ControlFlow::Break`](std::ops::ControlFlow::Break) the call ends soon with its
//! room's error `Cancelled`; no half-written file is left, and what was saved goes on later to the
//! same bytes. [`unwatched`] looks away. Calls that are short but for large files have a form of
//! their own, which ends in `_watched`.
//!
//! # Same bytes
//!
//! The same inputs give the same bytes on one device, with any number of threads, in any company:
//! a picture of a batch is the same alone, and requests that are prepared on one pipeline do not
//! touch each other.
//!
//! # Features
//!
//! | feature | what it adds | without it |
//! |---|---|---|
//! | `cpu` | the back end for the processor | `Device::best` is an adapter |
//! | `wgpu` | the back end for graphics cards, and kernels of one's own | no wgpu in the build |
//! | `tiny-model` | the very small model, 25 MB in the binary | no `Checkpoint::shipped` |
//! | `server` | [`server`]: pictures over HTTP, and a page | no axum and tokio in the build |
//! | `cli` | the program `mos`, with all of the others | no parser of command lines |
//!
//! All are on unless `default-features = false`.
//!
//! # Errors
//!
//! Each room has an `Error`, which names the file, the tensor or the option, what was expected and
//! what was found. Their enums grow: match with a last arm.

#![warn(missing_docs)]
#![cfg_attr(
    not(all(feature = "wgpu", feature = "cpu")),
    allow(dead_code, unused_imports, reason = "parts of the seam are for a back end left out")
)]

pub mod backend;
pub mod checkpoint;
pub mod concept;
pub mod fusion;
pub mod graph;
pub mod metrics;
pub mod models;
pub mod picture;
pub mod pipeline;
pub mod region;
pub mod scheduler;
#[cfg(feature = "server")]
pub mod server;
pub mod training;
#[cfg(feature = "wgpu")]
pub mod workbench;

// What the rooms above are built of. What of them somebody outside needs stands in those.
mod elsewhere;
mod file_kind;
mod html;
mod nn;
mod numbers;
#[cfg(feature = "object-store")]
mod objects;
mod output;
mod plainly;
mod quant;
mod random;
mod sd;
mod text;
mod watch;

pub use backend::{Device, Precision};
pub use checkpoint::Checkpoint;
pub use concept::{Applied, Concept};
pub use elsewhere::{Elsewhere, Nowhere};
pub use html::escaped as html_escaped;
pub use numbers::{Range as NumberRange, counted};
#[cfg(feature = "object-store")]
pub use objects::ObjectFolder;
pub use picture::Picture;
pub use pipeline::{Pipeline, Request};
pub use watch::{Cancelled, Progress, Watch, unwatched};
