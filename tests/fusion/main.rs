//! Fusion of made-up concepts on a small made-up model: against the published procedure in double
//! precision, and its properties.

mod bad_input;
mod cancelling;
#[allow(dead_code, reason = "not all tests ask for all of it")]
#[path = "../common/chosen.rs"]
mod chosen;
mod distillation;
mod growing;
#[path = "../common/hashed.rs"]
#[allow(dead_code, reason = "files are written from the values, not read through a source")]
mod hashed;
mod properties;
mod reference;
mod speed;
mod world;
