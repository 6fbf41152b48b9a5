//! Noise schedules, samplers and random numbers: everything about diffusion that needs no model.
pub mod config;
pub mod philox;
pub mod random;
pub mod sampler;
pub mod schedule;
pub mod torch_rng;
