//! Noise schedules, samplers and random numbers: everything about diffusion that needs no model.
pub mod philox;
pub mod random;
pub mod torch_rng;
