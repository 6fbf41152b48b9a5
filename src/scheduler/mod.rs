//! Noise schedules and samplers: what a model's files say of them, and the steps that a picture
//! takes.
pub mod config;
pub mod sampler;
pub mod schedule;
