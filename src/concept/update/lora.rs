//! LoRA: a change of low rank.

use super::{Piece, times};
use crate::graph::Array;

/// A low-rank update: the weight's change is up down (Hu et al. 2021, "LoRA").
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// f32 `[rank, in]`, of a convolution with a window of k x k `[rank, in, k, k]`.
    pub down: Array,
    /// f32 `[out, rank]`
    pub up: Array,
}

impl Lora {
    /// Columns of `up`, which are the rows of `down`.
    pub fn rank(&self) -> usize {
        self.down.shape.first().copied().unwrap_or(0)
    }

    /// Elements of a row of the change.
    pub(super) fn width(&self) -> usize {
        self.down.shape.iter().skip(1).product::<usize>().max(1)
    }

    pub(super) fn weight_shape(&self) -> Vec<usize> {
        let out = self.up.shape.first().copied().unwrap_or(0);
        std::iter::once(out).chain(self.down.shape.iter().skip(1).copied()).collect()
    }

    pub(super) fn scaled(&self, factor: f32) -> Lora {
        Lora { down: self.down.clone(), up: times(&self.up, factor) }
    }

    pub(super) fn add(&self, strength: f32, piece: &Piece, values: &mut [f32]) {
        piece.for_rows(self.width(), values, |row, first, values| {
            self.add_row(strength, row, first, values);
        });
    }

    /// Adds to elements of one row, from the column `first` on.
    pub(super) fn add_row(&self, strength: f32, row: usize, first: usize, values: &mut [f32]) {
        let (rank, width) = (self.rank(), self.width());
        let factors = self.up.values().iter().skip(row * rank).take(rank);
        for (factor, line) in factors.zip(self.down.values().chunks_exact(width)) {
            let line = line.get(first..first + values.len()).unwrap_or_default();
            values.iter_mut().zip(line).for_each(|(value, d)| *value += strength * factor * d);
        }
    }
}
