//! Noise schedules and samplers: what a model's files say of them, and the steps that a picture
//! takes.
pub mod config;
mod in_force;
pub mod sampler;
pub mod schedule;
pub mod spacing;
