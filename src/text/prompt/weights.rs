//! What a prompt's weights do to its encoding.
use super::super::{Error, Result};

/// Applies a prompt's weights to its encoding in place: each position is multiplied by its weight,
/// then all are scaled so that their mean is what it was. This is what web UIs do, so that their
/// prompts mean the same here.
///
/// `hidden` is `[positions, width]` of one chunk, as the text encoder puts it out; `weights` has one
/// value per position. Weights that are all 1 leave `hidden` as it is, to the bit. A mean of zero
/// afterwards, which cannot be scaled back, is left alone.
///
/// # Errors
/// `hidden` does not have `weights.len() * width` values.
pub fn apply_weights(hidden: &mut [f32], width: usize, weights: &[f32]) -> Result<()> {
    if Some(hidden.len()) != weights.len().checked_mul(width) || width == 0 {
        return Err(Error::Weights { values: hidden.len(), positions: weights.len(), width });
    }
    if weights.iter().all(|w| *w == 1.0) {
        return Ok(());
    }
    let sum = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
    let before = sum(hidden);
    for (row, weight) in hidden.chunks_exact_mut(width).zip(weights) {
        row.iter_mut().for_each(|v| *v *= weight);
    }
    let scale = before / sum(hidden);
    if scale.is_finite() {
        hidden.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
    }
    Ok(())
}
