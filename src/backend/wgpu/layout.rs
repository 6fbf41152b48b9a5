//! How weights lie on a graphics device.

use super::kernel::Scalar;
use crate::graph::Shape;
use crate::quant::Quant;

/// How a weight's elements lie on the device, prepared once at upload for the kernel that reads
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// f32, as in the file.
    Plain,
    /// Rows as in the file, in the file's precision.
    Rows,
    /// Weights `[out, in, taps..]` in panels of 64 outputs, `[out / 64][taps][in][64]`, in the
    /// file's precision; missing outputs are zero. Blocks: see `kernels/shared/weights.wgsl`.
    Panels,
    /// Weights `[out, in, kh, kw]` of a convolution of `stride` in the panels of the convolution
    /// that is its gradient: its outputs are the inputs for each of stride x stride phases,
    /// `[stride, stride, in]`, its inputs are `out`, and its window, read from the far end, is
    /// `[kh / stride, kw / stride]`, rounded up; taps beyond the edge are zero. A linear weight has
    /// stride 1.
    Transposed {
        /// Of the convolution that it is the gradient of.
        stride: usize,
    },
}

impl Layout {
    /// The layout that kernels read for this one, of a weight of `shape`: they turn a weight round
    /// on its way into workgroup memory, where its extents allow it, so that it is held once.
    pub(crate) fn suited(self, shape: &Shape) -> Layout {
        match (self, &shape[..]) {
            (Layout::Transposed { stride: 1 }, [out, into, ..])
                if vector_width(&[*out, *into]) == 4 =>
            {
                Layout::Panels
            }
            (layout, ..) => layout,
        }
    }
}

/// In which numbers a tensor is held on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Held {
    /// As everything but weights is.
    F32,
    /// Two in every u32.
    F16,
    /// A matrix in [`Layout::Panels`], in blocks of fewer bits.
    Blocks(Quant),
}

impl Held {
    /// The nearest to this in which a weight of `shape` can be held in `layout`: matrices alone are
    /// in blocks, and what lies as in the file for all kernels is f32.
    pub fn suited(self, layout: Layout, shape: &Shape) -> Held {
        match self {
            _ if layout == Layout::Plain => Held::F32,
            Held::Blocks(_) if layout != Layout::Panels || !Quant::suits(shape) => Held::F16,
            held => held,
        }
    }

    /// As kernels see it.
    pub fn scalar(self) -> Scalar {
        if self == Held::F32 { Scalar::F32 } else { Scalar::U32 }
    }

    /// Bytes of so many elements.
    pub(super) fn bytes(self, elements: usize) -> usize {
        match self {
            Held::F32 => elements * 4,
            Held::F16 => elements * 2,
            Held::Blocks(quant) => quant.bytes(elements),
        }
    }
}

/// Outputs in a panel of [`Layout::Panels`] and [`Layout::Transposed`].
pub(crate) const PANEL: usize = 64;

/// 4 where every extent is a multiple of 4, so that kernels may move vectors; else 1.
pub(crate) fn vector_width(extents: &[usize]) -> usize {
    if extents.iter().all(|n| n.is_multiple_of(4)) { 4 } else { 1 }
}
