//! Rows of a table, by index.

use super::parallel::{MEMORY, Shared, pieces};
use super::simd::Level;
use super::weights::{Stored, widen_bf16, widen_f16};

/// Row `ids[i]` of `table` `[rows, channels]`, which goes on in `extra`, for every index; the last
/// row for what is beyond.
pub fn embedding(
    level: Level,
    table: Stored<'_>,
    extra: &[f32],
    ids: &[u32],
    channels: usize,
    y: &mut [f32],
) {
    assert!(
        channels > 0 && y.len() == ids.len() * channels && table.len() + extra.len() >= channels
    );
    let last = (table.len() + extra.len()) / channels - 1;
    let y = Shared::new(y);
    let rows = table.len() / channels;
    pieces(ids.len(), ids.len() * channels * MEMORY, |i| {
        let to = unsafe { y.part(i * channels, channels) };
        let row = (ids[i] as usize).min(last);
        if let Some(row) = row.checked_sub(rows) {
            return to.copy_from_slice(&extra[row * channels..][..channels]);
        }
        let own = row * channels..(row + 1) * channels;
        match table {
            Stored::F32(table) => to.copy_from_slice(&table[own]),
            Stored::F16(table) => widen_f16(level, &table[own], to),
            Stored::BF16(table) => widen_bf16(level, &table[own], to),
        }
    });
}

/// The sum of dy's rows for each of the `rows` indices from `first` on, in their order; with
/// `clamped` indices beyond count for the last.
pub fn embedding_gradient(
    ids: &[u32],
    dy: &[f32],
    channels: usize,
    first: usize,
    clamped: bool,
    y: &mut [f32],
) {
    assert!(channels > 0 && dy.len() == ids.len() * channels && y.len().is_multiple_of(channels));
    super::elementwise::filled(y, 0.0);
    let rows = y.len() / channels;
    for (&id, dy) in ids.iter().zip(dy.chunks_exact(channels)) {
        let Some(row) = (id as usize).checked_sub(first) else { continue };
        let row = if clamped { row.min(rows - 1) } else { row };
        if row >= rows {
            continue;
        }
        for (sum, dy) in y[row * channels..][..channels].iter_mut().zip(dy) {
            *sum += dy;
        }
    }
}
