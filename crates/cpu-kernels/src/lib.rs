//! The compute kernels of the processor's back end: pure functions over slices, which know neither
//! graph nor device.
//!
//! All work is cut into pieces by its shape alone, never by the number of threads, and all sums are
//! made in an order that the shape fixes: the same bytes come of any number of threads. Kernels are
//! written once for all instruction sets ([`simd`]); matmuls stand on one register tile (`tile`).

pub mod activation;
pub mod attention;
pub mod attention_gradient;
pub mod elementwise;
pub mod embedding;
pub mod epilogue;
pub mod group_norm;
pub mod layer_norm;
pub mod lora_down;
mod math;
pub mod matmul;
pub mod optimiser;
pub mod parallel;
pub mod reduce;
pub mod regional_attention;
pub mod resize;
pub mod sampling;
pub mod simd;
mod tile;
mod turn;
pub mod weights;
