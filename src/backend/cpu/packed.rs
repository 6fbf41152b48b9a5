//! Weights in memory, as kernels read them.

use std::sync::Arc;

use half::{bf16, f16};

use super::layout::Layout;
use super::memory::{Counted, Span};
use cpu_kernels::weights::{self as kernels, Stored};

/// A weight in memory.
#[derive(Clone)]
pub(crate) enum Packed {
    Plain(Span),
    Rows(Arc<Table>),
    Matmul(Arc<Held>),
}

impl Packed {
    /// What is held in the layout `held`, for kernels that want it in `layout`.
    pub(super) fn seen_as(self, held: Layout, layout: Layout) -> Packed {
        match &self {
            Packed::Matmul(weights) if held != layout => match weights.turned() {
                Some(turned) => Packed::Matmul(Arc::new(Held {
                    weights: turned,
                    counted: weights.counted.clone(),
                })),
                None => self,
            },
            _ => self,
        }
    }
}

/// The weight of a matmul or a convolution.
pub(crate) struct Held {
    pub(super) weights: kernels::Weights,
    pub(super) counted: Arc<Counted>,
}

impl std::ops::Deref for Held {
    type Target = kernels::Weights;

    fn deref(&self) -> &kernels::Weights {
        &self.weights
    }
}

/// Numbers as they are stored.
pub(super) enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    BF16(Vec<bf16>),
}

/// The rows of a table.
pub(crate) struct Table {
    pub(super) numbers: Numbers,
    pub(super) _counted: Counted,
}

impl Table {
    pub fn stored(&self) -> Stored<'_> {
        match &self.numbers {
            Numbers::F32(numbers) => Stored::F32(numbers),
            Numbers::F16(numbers) => Stored::F16(numbers),
            Numbers::BF16(numbers) => Stored::BF16(numbers),
        }
    }
}
