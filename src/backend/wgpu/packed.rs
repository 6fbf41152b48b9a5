//! Weights on the host as kernels find them on a device.

use super::layout::{Layout, PANEL};
use super::transposed::Transposed;
use crate::graph::Shape;
use crate::quant::{BLOCK, Quant};

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

/// Blocks of the rows of a matrix of `into` inputs, in panels: see `kernels/shared/weights.wgsl`.
/// Rows that a panel lacks are zero.
pub(crate) fn packed_blocks(quant: Quant, into: usize, rows: &[u8]) -> Vec<u8> {
    let row = quant.bytes(into).max(1);
    let panels = (rows.len() / row).div_ceil(PANEL);
    let mut packed = vec![0; panels * PANEL * row];
    let pairs = packed.chunks_exact_mut(PANEL * row).zip(rows.chunks(PANEL * row));
    pairs.for_each(|(panel, rows)| fill_with_blocks(quant, into, panel, rows));
    packed
}

/// Up to 64 rows of blocks to a panel: factors side by side, then the bytes that follow them, those
/// of all rows side by side.
pub(super) fn fill_with_blocks(quant: Quant, into: usize, panel: &mut [u8], rows: &[u8]) {
    let row = quant.bytes(into).max(1);
    for (b, to) in panel.chunks_exact_mut(PANEL * quant.size()).enumerate().take(into / BLOCK) {
        let (factors, numbers) = to.split_at_mut(PANEL * 2);
        for (o, row) in rows.chunks_exact(row).enumerate() {
            let (factor, bytes) = row[b * quant.size()..(b + 1) * quant.size()].split_at(2);
            factors[o * 2..o * 2 + 2].copy_from_slice(factor);
            for (i, byte) in bytes.iter().enumerate() {
                numbers[i * PANEL + o] = *byte;
            }
        }
    }
}
