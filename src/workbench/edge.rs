//! Whether a kernel that is wrong at ragged sizes is right where tiles are whole.

use super::compare::Found;
use super::interface::Interface;
use super::interpreter::{End, Options};
use super::source::{Settings, Source, Wgsl};
use super::spec::{Fill, Reference, Shape, Spec};
use super::trial::{Trial, interpreter, tolerance};

/// Multiples of sizes, each another than the others: where two are alike, one may stand for the
/// other, and a wrong stride is right.
pub(super) fn unlike(sizes: &[usize]) -> Vec<usize> {
    let mut all: Vec<usize> = Vec::new();
    for &size in sizes {
        let free = (1..=sizes.len() + 1).map(|by| size * by);
        let free = free.into_iter().find(|multiple| !all.contains(multiple));
        all.push(free.unwrap_or(size));
    }
    all
}

/// Whether results are right at these sizes, executed as the kernel is written; nothing where that
/// cannot be told.
pub(super) fn is_right(
    source: &Source,
    spec: &Spec,
    settings: &Settings,
    wgsl: &Wgsl,
    interface: &Interface,
    sizes: &[usize],
) -> Option<bool> {
    const MOST: u64 = 12_000_000;
    if !matches!(spec.reference, Reference::Kind(_)) {
        return None;
    }
    let (label, sizes) = (String::new(), sizes.to_vec());
    let shape = Shape { label, sizes, fill: Fill::Ordinary, huge: false };
    let trial = Trial::new(source, spec, settings, interface, &shape).ok()?;
    if trial.sizes != shape.sizes {
        return None;
    }
    let machine = interpreter(&wgsl.text, &trial.numbers).ok()?;
    let options =
        Options { subgroup: 32, overflow: false, most: MOST, rounds: MOST, corners: false };
    let (outputs, executed) = trial.interpret(&machine, interface, spec, options).ok()?;
    if executed.end != End::Whole {
        return None;
    }
    let tolerance = tolerance(source, spec, interface, &trial.sizes);
    let mut right = true;
    for (index, (output, tensor)) in outputs.iter().zip(spec.outputs()).enumerate() {
        let extents = spec.extents(tensor, &trial.sizes);
        let width = extents.last().copied().unwrap_or(1).max(1);
        let rows: Vec<usize> = (0..spec.elements(tensor, &trial.sizes) / width).collect();
        let expected = spec.expected(index, &trial.sizes, &trial.inputs(), &rows).ok()?;
        let found = Found {
            name: &tensor.name,
            extents: &extents,
            rows: &rows,
            expected: &expected,
            values: &output.values,
            written: Some(&output.written),
            in_part: false,
        };
        right &= found.verdict(tolerance).faults.is_empty();
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_become_unlike() {
        assert_eq!(unlike(&[64, 64, 64]), [64, 128, 192]);
        assert_eq!(unlike(&[1, 32, 32, 2, 16]), [1, 32, 64, 2, 16]);
        assert_eq!(unlike(&[8, 64]), [8, 64]);
    }
}
