//! The operations, one to a file: builder, shape rule, plain-Rust twin, and the kernels that can run it.

mod activation;
mod attention;
mod binary;
mod concat;
mod conv2d;
mod embedding;
mod geglu;
mod group_norm;
mod guidance;
mod layer_norm;
mod linear;
mod mix;
mod pad2d;
mod reshape;
mod scale;
mod slice;
mod upsample;

use std::fmt::Debug;

pub use activation::Function;

use super::{Array, Shape};

/// A node's computation. Operations know nothing of names, files or models.
pub trait Operation: Debug + Send + Sync {
    /// As errors, profiles and benches call it.
    fn name(&self) -> &'static str;

    /// The output's shape, or a message that says what was expected and what was found.
    fn shape(&self, inputs: &[&Shape]) -> Result<Shape, String>;

    /// The plain-Rust twin: fills `output` (of `shape`, row-major) from inputs whose shapes [`Operation::shape`] accepted.
    fn evaluate(&self, inputs: &[&Array], shape: &Shape, output: &mut [f32]);

    /// Useful floating-point operations (a multiply-add counts two).
    fn flops(&self, _inputs: &[&Shape], output: &Shape) -> u64 {
        output.elements() as u64
    }
}

/// The `N` shapes that an operation takes, or a message.
pub(crate) fn arity<'a, const N: usize>(inputs: &[&'a Shape]) -> Result<[&'a Shape; N], String> {
    <[&Shape; N]>::try_from(inputs).map_err(|_| format!("takes {N} inputs, found {}", inputs.len()))
}
