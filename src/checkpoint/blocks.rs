//! Numbers in blocks, as GGUF stores them: a few bits each, with a factor for all of a block, and for
//! some types a summand. Reading them, and making them.

use half::f16;
use rayon::prelude::*;

use super::dtype::DType;
use crate::quant::{Quant, around_zero, inverse, packed};

/// Elements of the largest block.
const LARGEST: usize = 256;
/// Elements of a block of the K types that share a factor.
const SUB_BLOCK: usize = 32;
const SUB_BLOCKS: usize = LARGEST / SUB_BLOCK;
/// Blocks that one thread makes at a time.
const AT_ONCE: usize = 1 << 10;

/// Reads elements from `start` on. Whatever the bytes, there is a number for each.
pub(super) fn read(dtype: DType, bytes: &[u8], start: usize, out: &mut [f32]) {
    let (elements, size) = dtype.block();
    let mut buffer = [0f32; LARGEST];
    let (mut at, mut rest) = (start, out);
    while !rest.is_empty() {
        let (number, first) = (at / elements, at % elements);
        let count = (elements - first).min(rest.len());
        let (here, after) = rest.split_at_mut(count);
        let block = bytes.get(number * size..(number + 1) * size).unwrap_or_default();
        let values = buffer.get_mut(..elements).unwrap_or_default();
        decode(dtype, block, values);
        here.iter_mut().zip(values.iter().skip(first)).for_each(|(to, from)| *to = *from);
        (rest, at) = (after, at + count);
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    block.get(at..at + 2).map_or(0.0, |b| f16::from_le_bytes([b[0], b[1]]).to_f32())
}

fn part(block: &[u8], at: usize, length: usize) -> &[u8] {
    block.get(at..at + length).unwrap_or_default()
}

/// Element `i` of 32 of 4 bits: the first half in the low bits, the second in the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    bytes.iter().map(|byte| byte & 15).chain(bytes.iter().map(|byte| byte >> 4))
}

/// The fifth bits of 32 elements.
fn fifth_bits(bytes: &[u8]) -> impl Iterator<Item = u8> {
    (0..32usize).map(|i| bytes.get(i / 8).map_or(0, |byte| (byte >> (i % 8) & 1) << 4))
}

fn decode(dtype: DType, block: &[u8], values: &mut [f32]) {
    let set = |values: &mut [f32], numbers: &mut dyn Iterator<Item = f32>| {
        values.iter_mut().zip(numbers).for_each(|(value, number)| *value = number);
    };
    let factor = half_at(block, 0);
    match dtype {
        DType::Q8_0 => Quant::Q8_0.read(block, values),
        DType::Q4_0 => Quant::Q4_0.read(block, values),
        DType::Q4_1 => {
            let summand = half_at(block, 2);
            let mut numbers = nibbles(part(block, 4, 16)).map(|q| factor * f32::from(q) + summand);
            set(values, &mut numbers);
        }
        DType::Q5_0 => {
            let whole = nibbles(part(block, 6, 16)).zip(fifth_bits(part(block, 2, 4)));
            let mut numbers = whole.map(|(q, high)| factor * f32::from((q | high) as i8 - 16));
            set(values, &mut numbers);
        }
        DType::Q5_1 => {
            let summand = half_at(block, 2);
            let whole = nibbles(part(block, 8, 16)).zip(fifth_bits(part(block, 4, 4)));
            let mut numbers = whole.map(|(q, high)| factor * f32::from(q | high) + summand);
            set(values, &mut numbers);
        }
        DType::Q4K | DType::Q5K => {
            let summand = half_at(block, 2);
            let five = dtype == DType::Q5K;
            let (high, low) = if five { (16, 48) } else { (16, 16) };
            for (n, values) in values.chunks_exact_mut(SUB_BLOCK).enumerate() {
                let (scale, least) = scales_at(part(block, 4, 12), n);
                let (scale, least) = (factor * f32::from(scale), summand * f32::from(least));
                let bytes = part(block, low + n / 2 * SUB_BLOCK, SUB_BLOCK);
                let bits = part(block, high, SUB_BLOCK);
                for (i, value) in values.iter_mut().enumerate() {
                    let q = bytes.get(i).map_or(0, |byte| byte >> (4 * (n % 2)) & 15);
                    let fifth = bits.get(i).map_or(0, |byte| (byte >> n & 1) << 4);
                    let q = if five { q | fifth } else { q };
                    *value = scale * f32::from(q) - least;
                }
            }
        }
        DType::Q6K => {
            let factor = half_at(block, 208);
            let scales = part(block, 192, 16);
            for (i, value) in values.iter_mut().enumerate() {
                let (half, inside) = (i / 128, i % 128);
                let (quarter, column) = (inside / 32, inside % 32);
                let low = block.get(half * 64 + quarter % 2 * 32 + column).copied().unwrap_or(0);
                let low = low >> (4 * (quarter / 2)) & 15;
                let high = block.get(128 + half * 32 + column).copied().unwrap_or(0);
                let high = (high >> (2 * quarter) & 3) << 4;
                let scale = scales.get(i / 16).map_or(0, |scale| *scale as i8);
                *value = factor * f32::from(scale) * f32::from((low | high) as i8 - 32);
            }
        }
        _ => values.fill(0.0),
    }
}

/// Scale and least value of a part of a K block, 6 bits each: those of the first four parts stand in
/// low bits, those of the others are spread.
fn scales_at(packed: &[u8], n: usize) -> (u8, u8) {
    let at = |i: usize| packed.get(i).copied().unwrap_or(0);
    match n.checked_sub(4) {
        None => (at(n) & 63, at(n + 4) & 63),
        Some(rest) => {
            let shared = at(8 + rest);
            (shared & 15 | at(rest) >> 6 << 4, shared >> 4 | at(n) >> 6 << 4)
        }
    }
}

/// The bytes of `values` in blocks, of which rows are whole ones: in Q8_0, Q5_0, Q4_0 or Q4_K.
pub(super) fn make(dtype: DType, values: &[f32]) -> Vec<u8> {
    let (elements, size) = dtype.block();
    let mut bytes = vec![0; values.len() / elements * size];
    let parts = bytes.par_chunks_mut(AT_ONCE * size).zip(values.par_chunks(AT_ONCE * elements));
    parts.for_each(|(bytes, values)| {
        for (block, values) in bytes.chunks_exact_mut(size).zip(values.chunks_exact(elements)) {
            encode(dtype, values, block);
        }
    });
    bytes
}

fn put(block: &mut [u8], at: usize, bytes: impl IntoIterator<Item = u8>) {
    block.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = from);
}

fn encode(dtype: DType, values: &[f32], block: &mut [u8]) {
    match dtype {
        DType::Q8_0 => Quant::Q8_0.make(values, block),
        DType::Q4_0 => Quant::Q4_0.make(values, block),
        DType::Q5_0 => {
            let (factor, numbers) = around_zero(values, 16);
            put(block, 0, factor.to_le_bytes());
            let fifth = |numbers: &[u8]| {
                numbers.iter().enumerate().fold(0, |bits, (i, q)| bits | (q >> 4) << i)
            };
            put(block, 2, numbers.chunks(8).map(fifth));
            put(block, 6, packed(&numbers));
        }
        DType::Q4K => encode_q4_k(values, block),
        _ => {}
    }
}

/// Factors and least values that suit each part best, then both in 6 bits, then the numbers.
fn encode_q4_k(values: &[f32], block: &mut [u8]) {
    let mut fits = [(0f32, 0f32); SUB_BLOCKS];
    for (fit, values) in fits.iter_mut().zip(values.chunks_exact(SUB_BLOCK)) {
        *fit = fitted(values);
    }
    let most = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0f32, f32::max);
    let (factor, least) = (most(|fit| fit.0) / 63.0, most(|fit| fit.1) / 63.0);
    let (by_factor, by_least) = (inverse(factor), inverse(least));
    let (factor, least) = (f16::from_f32(factor), f16::from_f32(least));
    let six = |value: f32, by: f32| (value * by).round().clamp(0.0, 63.0) as u8;
    let scales = fits.map(|(scale, low)| (six(scale, by_factor), six(low, by_least)));
    put(block, 0, factor.to_le_bytes());
    put(block, 2, least.to_le_bytes());
    let mut packed = [0u8; 12];
    for (n, (scale, low)) in scales.into_iter().enumerate() {
        match n.checked_sub(4) {
            None => {
                packed[n] |= scale;
                packed[n + 4] |= low;
            }
            Some(rest) => {
                packed[8 + rest] = scale & 15 | (low & 15) << 4;
                packed[rest] |= scale >> 4 << 6;
                packed[n] |= low >> 4 << 6;
            }
        }
    }
    put(block, 4, packed);
    let mut numbers = [0u8; LARGEST];
    let parts = numbers.chunks_exact_mut(SUB_BLOCK).zip(values.chunks_exact(SUB_BLOCK));
    for ((numbers, values), (scale, low)) in parts.zip(scales) {
        let (scale, low) = (factor.to_f32() * f32::from(scale), least.to_f32() * f32::from(low));
        let by = inverse(scale);
        for (number, value) in numbers.iter_mut().zip(values) {
            *number = ((value + low) * by).round().clamp(0.0, 15.0) as u8;
        }
    }
    for (n, pair) in numbers.chunks_exact(2 * SUB_BLOCK).enumerate() {
        let (first, second) = pair.split_at(SUB_BLOCK);
        let bytes = first.iter().zip(second).map(|(low, high)| low | high << 4);
        put(block, 16 + n * SUB_BLOCK, bytes);
    }
}

/// A factor and what is subtracted, neither of them negative, with which numbers from 0 to 15 come
/// closest to `values`: several widths are tried, each with the best line through its numbers.
fn fitted(values: &[f32]) -> (f32, f32) {
    const WIDTHS: [f32; 9] = [15.0, 14.0, 14.25, 14.5, 14.75, 15.25, 15.5, 15.75, 16.0];
    let low = values.iter().copied().fold(0f32, f32::min);
    let high = values.iter().copied().fold(f32::MIN, f32::max);
    let spread = high - low;
    if spread.is_nan() || spread <= 0.0 || spread.is_infinite() {
        return (0.0, if low.is_finite() { -low } else { 0.0 });
    }
    let error = |scale: f32, least: f32| -> f32 {
        let by = inverse(scale);
        let each = |value: &f32| {
            let number = ((value + least) * by).round().clamp(0.0, 15.0);
            (scale * number - least - value).powi(2)
        };
        values.iter().map(each).sum()
    };
    let mut best = (spread / 15.0, -low);
    let mut smallest = error(best.0, best.1);
    for width in WIDTHS {
        let by = width / spread;
        let numbers = values.iter().map(|value| ((value - low) * by).round().clamp(0.0, 15.0));
        let (mut n, mut n2, mut v, mut nv) = (0f32, 0f32, 0f32, 0f32);
        for (number, value) in numbers.zip(values) {
            n += number;
            n2 += number * number;
            v += value;
            nv += number * value;
        }
        let count = values.len() as f32;
        let divisor = count * n2 - n * n;
        if divisor <= 0.0 {
            continue;
        }
        let mut scale = (count * nv - n * v) / divisor;
        let mut least = -(v - scale * n) / count;
        if least < 0.0 {
            // Without a summand.
            (scale, least) = (nv / n2, 0.0);
        }
        let found = error(scale, least);
        if scale > 0.0 && found < smallest {
            (best, smallest) = ((scale, least), found);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::TensorFile;
    use std::path::Path;

    const MADE: [DType; 4] = [DType::Q8_0, DType::Q5_0, DType::Q4_0, DType::Q4K];

    fn fixture() -> TensorFile {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        TensorFile::open(&path.join("tests/fixtures/files/blocks.safetensors")).unwrap()
    }

    fn bytes(file: &TensorFile, name: &str) -> Vec<u8> {
        file.tensor(name).unwrap_or_else(|| panic!("{name}")).bytes().to_vec()
    }

    fn numbers(file: &TensorFile, name: &str) -> Vec<f32> {
        let view = file.tensor(name).unwrap_or_else(|| panic!("{name}"));
        view.to_f32(0..view.len())
    }

    fn quantised() -> impl Iterator<Item = DType> {
        DType::ALL.iter().copied().filter(|dtype| dtype.is_quantised())
    }

    #[test]
    fn blocks_are_read_as_the_gguf_package_reads_them() {
        let file = fixture();
        for dtype in quantised() {
            // Random bytes: every bit counts.
            let blocks = bytes(&file, &format!("{dtype}.blocks"));
            let expected = numbers(&file, &format!("{dtype}.values"));
            let mut found = vec![0.0; expected.len()];
            read(dtype, &blocks, 0, &mut found);
            let same = |a: &f32, b: &f32| a.to_bits() == b.to_bits() || *a == 0.0 && *b == 0.0;
            let wrong = found.iter().zip(&expected).position(|(a, b)| !same(a, b));
            assert_eq!(wrong, None, "{dtype}: {:?}", wrong.map(|i| (found[i], expected[i])));
            // A part of it, across blocks.
            let mut part = vec![0.0; 300];
            read(dtype, &blocks, 21, &mut part);
            assert_eq!(part, found[21..321], "{dtype}");
        }
    }

    #[test]
    fn blocks_are_made_as_the_gguf_package_makes_them() {
        let file = fixture();
        let values = numbers(&file, "values");
        for dtype in [DType::Q8_0, DType::Q5_0, DType::Q4_0] {
            assert_eq!(make(dtype, &values), bytes(&file, &format!("{dtype}.made")), "{dtype}");
        }
    }

    fn error(dtype: DType, values: &[f32]) -> f64 {
        let mut found = vec![0.0; values.len()];
        read(dtype, &make(dtype, values), 0, &mut found);
        let square = |a: f32, b: f32| f64::from(a - b).powi(2);
        let error: f64 = found.iter().zip(values).map(|(a, b)| square(*a, *b)).sum();
        error / values.iter().map(|v| square(*v, 0.0)).sum::<f64>().max(1e-30)
    }

    #[test]
    fn numbers_of_fewer_bits_are_close() {
        let file = fixture();
        let values = &numbers(&file, "values")[..1024];
        let errors = MADE.map(|dtype| error(dtype, values).sqrt());
        let [q8, q5, q4, q4_k] = errors;
        assert!(q8 < 0.006 && q5 < 0.06 && q4 < 0.12 && q4_k < 0.085, "{errors:?}");
        // All the same, all positive, nothing, and what is not finite.
        assert!(error(DType::Q4K, &[0.25; 256]) < 1e-4);
        let positive: Vec<f32> = values[..256].iter().map(|v| v.abs() + 3.0).collect();
        assert!(error(DType::Q4K, &positive) < 1e-2);
        for dtype in MADE {
            assert_eq!(error(dtype, &[0.0; 256]), 0.0);
            make(dtype, &[f32::NAN; 256]);
            make(dtype, &[f32::INFINITY; 256]);
        }
    }
}
