//! Noise schedules, samplers, random numbers, and the pipeline that makes pictures of them and a model.
pub mod config;
pub mod latents;
pub mod philox;
pub mod pipeline;
pub mod random;
pub mod recipe;
pub mod sampler;
pub mod schedule;
pub mod torch_rng;
