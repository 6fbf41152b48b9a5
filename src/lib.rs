//! Mix-of-Show on any graphics card.
//!
//! The library behind the program `mos`. Arrows point down only: [`fusion`] over [`training`] over
//! [`pipeline`], which use [`models`], which are built from [`nn`] in terms of [`graph`], which any
//! [`backend`] runs. [`metrics`] stand over the pipeline. What a [`concept`] is and its files,
//! noise schedules and samplers ([`scheduler`]), [`region`]s, [`picture`]s, files ([`checkpoint`]),
//! [`text`] and [`random`] numbers stand below them and know no device.

pub mod backend;
pub mod checkpoint;
pub mod concept;
pub mod file_kind;
pub mod fusion;
pub mod graph;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod output;
pub mod picture;
pub mod pipeline;
pub mod random;
pub mod region;
pub mod scheduler;
pub mod sd;
pub mod text;
pub mod training;
