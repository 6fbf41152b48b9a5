//! Mix-of-Show on any graphics card.
//!
//! The library behind the program `mos`. Arrows point down only: `cli` uses everything; `diffusion` uses `models`, which
//! are built from `nn`, which calls `graph`, which runs on `gpu`. `checkpoint`, `text` and `picture` stand beside them and
//! know neither graph nor gpu. Of `concept`, what a concept is, its files and the binding of its words stand below `diffusion`,
//! which applies them; tuning stands above it.
pub mod backend;
pub mod checkpoint;
pub mod concept;
pub mod diffusion;
pub mod file_kind;
pub mod fusion;
pub mod graph;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod output;
pub mod picture;
pub mod region;
pub mod text;
