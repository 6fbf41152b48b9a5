//! Matrices in blocks: which are held so, and their rows as blocks, whatever they are stored as.

use std::ops::Range;

use super::Precision;
use crate::graph::{ParameterError, ParameterSource, Shape};
use crate::quant::{BLOCK, Quant, factor};

/// The blocks in which the weight `name` is held where `precision` is asked for. Low-rank updates
/// are in none: they are small, and so is what they add.
pub(super) fn quant_of(
    precision: Precision,
    source: &dyn ParameterSource,
    name: &str,
    shape: &Shape,
) -> Option<Quant> {
    if !Quant::suits(shape) || name.starts_with("concept-") {
        return None;
    }
    match (precision, source.quant(name)) {
        (Precision::AsStored, stored) => stored,
        (Precision::F16 | Precision::F32, _) => None,
        // In fewer bits they are already, and in other ones they would be rounded once more.
        (Precision::Q8, stored) => stored.or(Some(Quant::Q8_0)),
        (Precision::Q4, _) => Some(Quant::Q4_0),
    }
}

/// Reads the elements `range`, whole rows, as blocks: as they are stored, else made of numbers, for
/// which `values` is room.
pub(super) fn read_blocks(
    source: &dyn ParameterSource,
    name: &str,
    quant: Quant,
    range: Range<usize>,
    values: &mut Vec<f32>,
    blocks: &mut Vec<u8>,
) -> Result<(), ParameterError> {
    blocks.resize(quant.bytes(range.len()), 0);
    if source.quant(name) == Some(quant) {
        return source.read_blocks(name, range, blocks);
    }
    values.resize(range.len(), 0.0);
    source.read(name, range, values)?;
    let wrong = |value: f32| {
        let message = format!("{value} does not fit {}; use f32 weights", quant.name());
        ParameterError::Read { name: name.into(), message }
    };
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return Err(wrong(*value));
    }
    quant.make(values, blocks);
    let whole = blocks.chunks_exact(quant.size()).zip(values.chunks_exact(BLOCK));
    match whole.into_iter().find(|(block, _)| !factor(block).is_finite()) {
        Some((_, values)) => {
            Err(wrong(values.iter().fold(0.0, |m, v| if v.abs() > m { v.abs() } else { m })))
        }
        None => Ok(()),
    }
}
