//! Weights and inputs made from names: the same as `tools/reference/hashed.py`, which states the
//! rules.

use std::collections::HashMap;
use std::ops::Range;

use mixofshow::graph::{ParameterError, ParameterInfo, ParameterSource, StoredAs};

fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// Number `index` of `name`, in [-1, 1).
fn uniform(hash: u64, index: usize) -> f64 {
    let mut z = hash.wrapping_add(index as u64).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f64 / 16_777_216.0 * 2.0 - 1.0
}

/// The elements `range` of the tensor that `name` and `shape` stand for.
pub fn elements(name: &str, shape: &[usize], range: Range<usize>) -> Vec<f32> {
    let hash = fnv1a64(name);
    let (offset, scale) = if name.starts_with("input:") {
        (0.0, 1.0)
    } else if shape.len() >= 2 {
        (0.0, (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt())
    } else if name.ends_with(".weight") {
        (1.0, 0.1)
    } else {
        (0.0, 0.1)
    };
    range.map(|i| (offset + scale * uniform(hash, i)) as f32).collect()
}

/// The whole tensor of `name` and `shape`.
pub fn tensor(name: &str, shape: &[usize]) -> Vec<f32> {
    elements(name, shape, 0..shape.iter().product())
}

/// Hashed weights for a list of names and shapes.
pub struct HashedWeights(pub HashMap<String, Vec<usize>>);

impl ParameterSource for HashedWeights {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        self.0.get(name).map(|shape| ParameterInfo { shape: shape.clone(), stored: StoredAs::F32 })
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let shape =
            self.0.get(name).ok_or_else(|| ParameterError::Missing { name: name.into() })?;
        into.copy_from_slice(&elements(name, shape, range));
        Ok(())
    }
}

#[test]
fn hash_matches_the_reference() {
    // From tools/reference/hashed.py: uniform("conv_in.weight", 3).
    let found: Vec<f64> = (0..3).map(|i| uniform(fnv1a64("conv_in.weight"), i)).collect();
    assert_eq!(found, [0.14250004291534424, -0.7632356882095337, 0.8343135118484497]);
}
