//! IA3: channels scaled.

use super::{Piece, Side};
use crate::graph::Array;

/// Each channel that a layer reads or writes is multiplied by 1 + its factor (Liu et al. 2022,
/// "IA3"): rows or columns of the weight, and the bias where outputs are meant as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Ia3 {
    /// f32 `[channels]`
    pub factors: Array,
    /// Whose channels are meant.
    pub side: Side,
}

impl Ia3 {
    pub(super) fn add(&self, strength: f32, piece: &Piece, values: &mut [f32]) {
        piece.for_channels(self.side, values, |channel, values| {
            let factor = self.factors.values().get(channel).copied().unwrap_or(0.0);
            values.iter_mut().for_each(|value| *value += strength * factor * *value);
        });
    }
}
