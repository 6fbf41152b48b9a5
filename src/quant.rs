//! Weights in blocks: 32 numbers of a few bits each with one factor, as GGUF stores them.

use half::f16;

/// Numbers that share a factor.
pub const BLOCK: usize = 32;

/// The fewest outputs of a matrix in blocks.
const FEWEST: usize = 9;

/// Kinds of blocks that devices hold. A factor, in f16, comes first in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quant {
    /// Numbers of 8 bits.
    Q8_0,
    /// Numbers from 0 to 15, which stand for -8 to 7: the first half of a block in the low bits of
    /// 16 bytes, the second in the high ones.
    Q4_0,
}

impl Quant {
    /// All, the most exact first.
    pub const ALL: [Quant; 2] = [Quant::Q8_0, Quant::Q4_0];

    /// Whether weights of this shape are held in blocks: matrices, 1x1 convolutions too, whose rows
    /// are whole blocks. A few outputs have kernels of their own, and weigh little.
    pub fn suits(shape: &[usize]) -> bool {
        let [out, into, taps @ ..] = shape else { return false };
        let is_matrix = taps.iter().all(|side| *side == 1);
        is_matrix && *out >= FEWEST && *into > 0 && into.is_multiple_of(BLOCK)
    }

    /// As GGUF calls it.
    pub fn name(self) -> &'static str {
        match self {
            Quant::Q8_0 => "Q8_0",
            Quant::Q4_0 => "Q4_0",
        }
    }

    /// Bytes of a block.
    pub fn size(self) -> usize {
        match self {
            Quant::Q8_0 => 34,
            Quant::Q4_0 => 18,
        }
    }

    /// Bytes of so many elements, in whole blocks.
    pub fn bytes(self, elements: usize) -> usize {
        elements / BLOCK * self.size()
    }

    /// Makes whole blocks of `values`, to the last bit as GGML and the `gguf` package do.
    pub fn make(self, values: &[f32], blocks: &mut [u8]) {
        let pairs = blocks.chunks_exact_mut(self.size()).zip(values.chunks_exact(BLOCK));
        pairs.for_each(|(block, values)| self.encode(values, block));
    }

    /// The numbers of whole blocks.
    pub fn read(self, blocks: &[u8], values: &mut [f32]) {
        let pairs = blocks.chunks_exact(self.size()).zip(values.chunks_exact_mut(BLOCK));
        pairs.for_each(|(block, values)| self.decode(block, values));
    }

    fn encode(self, values: &[f32], block: &mut [u8]) {
        let (own, rest) = block.split_at_mut(2);
        match self {
            Quant::Q8_0 => {
                let factor = values.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
                let inverse = inverse(factor);
                own.copy_from_slice(&f16::from_f32(factor).to_le_bytes());
                // Halves go away from zero.
                let numbers = values.iter().map(|v| (v * inverse).round() as i8 as u8);
                rest.iter_mut().zip(numbers).for_each(|(to, from)| *to = from);
            }
            Quant::Q4_0 => {
                let (factor, numbers) = around_zero(values, 8);
                own.copy_from_slice(&factor.to_le_bytes());
                rest.iter_mut().zip(packed(&numbers)).for_each(|(to, from)| *to = from);
            }
        }
    }

    fn decode(self, block: &[u8], values: &mut [f32]) {
        let factor = factor(block).to_f32();
        let numbers = block.get(2..).unwrap_or_default();
        match self {
            Quant::Q8_0 => {
                let pairs = values.iter_mut().zip(numbers);
                pairs.for_each(|(value, q)| *value = f32::from(*q as i8) * factor);
            }
            Quant::Q4_0 => {
                let all = numbers.iter().map(|q| q & 15).chain(numbers.iter().map(|q| q >> 4));
                let pairs = values.iter_mut().zip(all);
                pairs.for_each(|(value, q)| *value = factor * f32::from(q as i8 - 8));
            }
        }
    }
}

/// A block's factor.
pub(crate) fn factor(block: &[u8]) -> f16 {
    block.get(..2).map_or(f16::ZERO, |b| f16::from_le_bytes([b[0], b[1]]))
}

/// 1 / factor; 0 for 0.
pub(crate) fn inverse(factor: f32) -> f32 {
    if factor == 0.0 { 0.0 } else { 1.0 / factor }
}

/// The number of the largest size, with its sign, becomes `-half`, and 0 becomes `half` of the
/// numbers that are stored. The first of equals counts.
pub(crate) fn around_zero(values: &[f32], half: u8) -> (f16, Vec<u8>) {
    let larger = |most: f32, v: f32| if v.abs() > most.abs() { v } else { most };
    let factor = values.iter().copied().fold(0f32, larger) / -f32::from(half);
    let (inverse, middle) = (inverse(factor), f32::from(half) + 0.5);
    let number = |v: &f32| ((v * inverse + middle) as u8).min(2 * half - 1);
    (f16::from_f32(factor), values.iter().map(number).collect())
}

/// Four bits each: the second half in the high ones.
pub(crate) fn packed(numbers: &[u8]) -> impl Iterator<Item = u8> {
    let (low, high) = numbers.split_at(numbers.len() / 2);
    low.iter().zip(high).map(|(low, high)| low & 15 | high << 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of blocks is in them again.
    #[test]
    fn numbers_of_blocks_make_the_same_blocks() {
        for quant in Quant::ALL {
            let values: Vec<f32> = (0..96).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.01).collect();
            let mut blocks = vec![0; quant.bytes(values.len())];
            quant.make(&values, &mut blocks);
            let mut found = vec![0.0; values.len()];
            quant.read(&blocks, &mut found);
            let most = [0.005, 0.07][usize::from(quant == Quant::Q4_0)];
            for (found, value) in found.iter().zip(&values) {
                assert!((found - value).abs() < most, "{quant:?}: {found} for {value}");
            }
            let mut again = vec![0; blocks.len()];
            quant.make(&found, &mut again);
            assert_eq!(again, blocks, "{quant:?}");
        }
    }
}
