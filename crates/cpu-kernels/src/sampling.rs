//! What samplers do with whole tensors: linear combinations, guidance, gates of low-rank updates.

use super::parallel::{MEMORY, Shared, piece, pieces};

/// Most slots of [`mix`].
const SLOTS: usize = 8;

/// `y[i] = sum_j matrix[i, j] z[j]`, where z is the `slots` entries of `state` followed by `a` and
/// `b`; `matrix` is `[slots, slots + 2]`. At most 8 slots.
pub fn mix(state: &[f32], a: &[f32], b: &[f32], matrix: &[f32], slots: usize, y: &mut [f32]) {
    let size = a.len();
    assert!((1..=SLOTS).contains(&slots) && matrix.len() == slots * (slots + 2));
    assert!(state.len() == slots * size && b.len() == size && y.len() == state.len());
    let each = piece(size, 64, slots * MEMORY);
    let y = Shared::new(y);
    pieces(size.div_ceil(each), size * slots * MEMORY, |i| {
        let start = i * each;
        let length = each.min(size - start);
        for (slot, row) in matrix.chunks_exact(slots + 2).enumerate() {
            let y = unsafe { y.part(slot * size + start, length) };
            y.fill(0.0);
            for (j, factor) in row.iter().enumerate().take(slots) {
                for (y, z) in y.iter_mut().zip(&state[j * size + start..][..length]) {
                    *y += factor * z;
                }
            }
            for ((y, a), b) in y.iter_mut().zip(&a[start..]).zip(&b[start..]) {
                *y = *y + row[slots] * a + row[slots + 1] * b;
            }
        }
    });
}

/// [`mix`] of a state that the result replaces.
pub fn mix_in_place(state: &mut [f32], a: &[f32], b: &[f32], matrix: &[f32], slots: usize) {
    let size = a.len();
    assert!((1..=SLOTS).contains(&slots) && matrix.len() == slots * (slots + 2));
    assert!(state.len() == slots * size && b.len() == size);
    let each = piece(size, 64, slots * MEMORY);
    let state = Shared::new(state);
    pieces(size.div_ceil(each), size * slots * MEMORY, |i| {
        for at in i * each..((i + 1) * each).min(size) {
            let mut old = [0.0; SLOTS];
            for (slot, old) in old.iter_mut().enumerate().take(slots) {
                *old = unsafe { *state.at(slot * size + at) };
            }
            for (slot, row) in matrix.chunks_exact(slots + 2).enumerate() {
                let sum = old[..slots].iter().zip(row).fold(0.0, |sum, (z, f)| sum + f * z);
                let sum = sum + row[slots] * a[at] + row[slots + 1] * b[at];
                unsafe { *state.at(slot * size + at) = sum };
            }
        }
    });
}

/// u + `scale` (c - u), u the first half of `x`, c the second.
pub fn guidance(x: &[f32], scale: f32, y: &mut [f32]) {
    assert_eq!(x.len(), 2 * y.len());
    let (u, c) = x.split_at(y.len());
    let (count, each) = (y.len(), piece(y.len(), 64, MEMORY));
    let y = Shared::new(y);
    pieces(count.div_ceil(each), count * MEMORY, |i| {
        let start = i * each;
        let y = unsafe { y.part(start, each.min(count - start)) };
        for ((y, u), c) in y.iter_mut().zip(&u[start..]).zip(&c[start..]) {
            *y = u + scale * (c - u);
        }
    });
}

/// One update's part of a gate.
#[derive(Clone, Copy, Debug)]
pub struct GatePart<'a> {
    /// Columns that belong to the update.
    pub rank: usize,
    pub factor: f32,
    pub strength: f32,
    /// One factor for each row, over and over; empty for none.
    pub mask: &'a [f32],
}

/// `[rows, ranks]`: factor * strength * mask of the update that the column belongs to.
pub fn lora_gate<'a>(
    parts: impl Iterator<Item = GatePart<'a>> + Clone,
    rows: usize,
    y: &mut [f32],
) {
    let ranks: usize = parts.clone().map(|part| part.rank).sum();
    assert_eq!(y.len(), rows * ranks);
    for (row, values) in y.chunks_exact_mut(ranks.max(1)).enumerate() {
        let mut first = 0;
        for part in parts.clone() {
            let mask = if part.mask.is_empty() { 1.0 } else { part.mask[row % part.mask.len()] };
            values[first..first + part.rank].fill(part.factor * part.strength * mask);
            first += part.rank;
        }
    }
}
