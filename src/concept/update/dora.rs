//! DoRA: a change of direction, with lengths of its own.

use super::{Piece, ReadPart, Side, Update};
use crate::graph::Array;

/// The weight with another change is brought to lengths of its own, channel by channel (Liu et al.
/// 2024, "DoRA"). What is added is the difference to the weight before, so that half as strong is
/// half of the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Dora {
    /// A LoRA, LoHa or LoKr, at its full scale.
    pub change: Update,
    /// Length of each channel, f32 `[channels]`.
    pub magnitude: Array,
    /// Whose channels are meant.
    pub side: Side,
    /// How far it goes.
    pub strength: f32,
}

/// Elements that are read at a time.
const PIECE: usize = 1 << 20;

impl Dora {
    /// For each channel, what brings the changed weight to its length.
    pub(super) fn measure<E>(
        &self,
        shape: &[usize],
        read: &mut ReadPart<'_, E>,
    ) -> Result<Vec<f32>, E> {
        let elements: usize = shape.iter().product();
        let mut squares = vec![0f64; self.magnitude.values().len()];
        let mut buffer = vec![0.0; PIECE.min(elements)];
        for start in (0..elements).step_by(PIECE) {
            let count = PIECE.min(elements - start);
            let values = buffer.get_mut(..count).unwrap_or_default();
            let piece = Piece { shape, range: start..start + count };
            read(piece.range.clone(), values)?;
            self.change.add_to(1.0, &piece, &[], values);
            piece.for_channels(self.side, values, |channel, values| {
                if let Some(sum) = squares.get_mut(channel) {
                    *sum += values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
                }
            });
        }
        let ratio = |(length, sum): (&f32, &f64)| length / (sum.sqrt() as f32 + f32::EPSILON);
        Ok(self.magnitude.values().iter().zip(&squares).map(ratio).collect())
    }

    pub(super) fn add(&self, strength: f32, piece: &Piece, ratios: &[f32], values: &mut [f32]) {
        let mut changed = values.to_vec();
        self.change.add(1.0, piece, &[], &mut changed);
        piece.for_channels(self.side, &mut changed, |channel, values| {
            let ratio = ratios.get(channel).copied().unwrap_or(1.0);
            values.iter_mut().for_each(|value| *value *= ratio);
        });
        let strength = strength * self.strength;
        values.iter_mut().zip(changed).for_each(|(v, changed)| *v += strength * (changed - *v));
    }
}
