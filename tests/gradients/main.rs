//! Gradients against central finite differences of the operations' plain-Rust twins.

mod differences;
mod models;
mod operations;
mod walk;

#[path = "../common/hashed.rs"]
mod hashed;
