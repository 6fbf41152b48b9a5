//! What a device must do whatever the model: random graphs, steady memory, and errors where there is none.

mod adapters;
#[path = "../common/engine.rs"]
#[allow(dead_code, reason = "shared with tests that need all of it")]
mod engine;
mod folding;
#[path = "../common/hashed.rs"]
mod hashed;
mod large;
mod memory;
mod random;
