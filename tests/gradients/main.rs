//! Gradients against central finite differences of the operations' reference implementations.

mod differences;
#[path = "../common/engine.rs"]
#[allow(dead_code, reason = "shared with tests that need all of it")]
mod engine;
mod models;
mod operations;
mod walk;
mod work;

#[path = "../common/hashed.rs"]
mod hashed;
#[path = "../common/reference.rs"]
#[allow(dead_code, reason = "these cases have no probes")]
mod reference;
