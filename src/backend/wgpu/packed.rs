//! Weights on the host as kernels find them on a device.

use super::layout::{Layout, PANEL};
use super::transposed::Transposed;
use crate::graph::Shape;

/// `values` of a weight of `shape` as `layout` has them, in f32.
pub(crate) fn packed(shape: &Shape, layout: Layout, values: &[f32]) -> Vec<f32> {
    match layout {
        Layout::Plain | Layout::Rows => values.to_vec(),
        Layout::Panels => {
            let (out, into) = (shape[0], shape.get(1).copied().unwrap_or(1));
            let taps: usize = shape[2.min(shape.len())..].iter().product();
            let mut panels = vec![0.0; out.next_multiple_of(PANEL) * into * taps];
            for (at, &value) in values.iter().enumerate() {
                let (o, i, tap) = (at / (into * taps), at / taps % into, at % taps);
                panels[((o / PANEL * taps + tap) * into + i) * PANEL + o % PANEL] = value;
            }
            panels
        }
        Layout::Transposed { stride } => {
            let layout = Transposed::of(shape, stride);
            let mut panels = vec![0.0; layout.elements()];
            let put = |at: usize, run: &[f32]| {
                panels[at..at + run.len()].copy_from_slice(run);
                Ok::<(), ()>(())
            };
            // Nothing fails that only copies.
            let _ = layout.rearrange(0..shape[0], values, put);
            panels
        }
    }
}
