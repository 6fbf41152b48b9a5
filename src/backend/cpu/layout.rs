//! How weights lie in memory.

use crate::graph::Shape;
use cpu_kernels::weights::can_be_turned;

/// How a weight's elements lie, prepared once for the kernel that reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    /// f32, as in the file.
    Plain,
    /// Rows as in the file, in the file's precision.
    Rows,
    /// Weights `[out, in, taps..]` in panels of outputs, in the file's precision.
    Matmul,
    /// Weights `[out, in, kh, kw]` of a convolution of `stride` in the panels of the convolution
    /// that is its gradient. A linear weight has stride 1; of that one, panels that are there are
    /// read the other way round, unless it is narrow.
    Transposed { stride: usize },
}

impl Layout {
    /// Whether only a weight can lie so.
    pub fn is_packed(self) -> bool {
        matches!(self, Layout::Matmul | Layout::Transposed { .. })
    }

    /// The layout in which a weight of `shape` is held for kernels that want this one.
    pub(super) fn held(self, shape: &Shape) -> Layout {
        match (self, &shape[..]) {
            (Layout::Transposed { stride: 1 }, [out, into, ..]) if can_be_turned(*out, *into) => {
                Layout::Matmul
            }
            (layout, _) => layout,
        }
    }
}
