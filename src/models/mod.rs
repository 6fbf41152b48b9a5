//! The models, each a function from its configuration to the graph of one shape, built of
//! [`nn`]'s layers. Parameters carry the names of diffusers' and transformers' files.
pub mod clip_text;
pub mod clip_vision;
pub mod config;
pub mod controlnet;
pub mod preset;
pub mod rrdbnet;
pub mod t2i_adapter;
pub mod tiny_vae;
pub mod unet;
pub mod vae;
pub mod vit;

/// Layers, in terms of graph operations: what the models are built of.
pub mod nn {
    pub use crate::nn::*;
}

use crate::graph::ops::Function;

impl From<config::Activation> for Function {
    fn from(activation: config::Activation) -> Self {
        match activation {
            config::Activation::Silu => Function::Silu,
            config::Activation::Gelu => Function::Gelu,
            config::Activation::QuickGelu => Function::QuickGelu,
        }
    }
}
