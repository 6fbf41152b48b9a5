//! What a fault may come of, and what is no fault but may surprise.

use super::compare::{Found, Tolerance};
use super::interface::{Interface, Stored};
use super::reference::loosen;
use super::spec::{Reference, Spec};
use super::trial::{Output, Trial};

/// An input that is taken as its transpose, if that explains what came out.
pub(super) fn transposed(
    spec: &Spec,
    trial: &Trial,
    rows_of: &[Vec<usize>],
    outputs: &[Output],
    tolerance: Tolerance,
    in_part: bool,
) -> Option<String> {
    if matches!(spec.reference, Reference::Kernel(_)) {
        return None;
    }
    let sizes = &trial.sizes;
    for (index, tensor) in spec.inputs().enumerate() {
        let [rows, columns] = spec.extents(tensor, sizes)[..] else { continue };
        if rows < 2 || columns < 2 {
            continue;
        }
        let mut inputs = trial.inputs.clone();
        let own = &trial.inputs[index];
        inputs[index] =
            (0..rows * columns).map(|i| own[i % columns * rows + i / columns]).collect();
        let inputs: Vec<&[f64]> = inputs.iter().map(Vec::as_slice).collect();
        // So many elements that are another's in the transposed one are right by no chance.
        const ENOUGH: usize = 16;
        let mut others = 0;
        let right = outputs.iter().enumerate().all(|(number, output)| {
            let rows = &rows_of[number];
            let result = |inputs: &[&[f64]]| {
                let mut expected = spec.expected(number, sizes, inputs, rows).ok()?;
                if let Reference::Formulas(_) = spec.reference {
                    loosen(&mut expected);
                }
                Some(expected)
            };
            let (Some(expected), Some(own)) = (result(&inputs), result(&trial.inputs())) else {
                return false;
            };
            let both = own.iter().flatten().zip(expected.iter().flatten());
            others += both
                .filter(|(own, other)| (own.value - other.value).abs() > tolerance.allows(**own))
                .count();
            let Some(tensor) = spec.outputs().nth(number) else { return false };
            let found = Found {
                name: &tensor.name,
                extents: &spec.extents(tensor, sizes),
                rows,
                expected: &expected,
                values: &output.values,
                written: Some(&output.written),
                in_part,
            };
            found.verdict(tolerance).faults.is_empty()
        });
        if right && others >= ENOUGH {
            let how = match rows == columns {
                true => String::new(),
                false => format!(", as [{columns}, {rows}] instead of [{rows}, {columns}]"),
            };
            return Some(format!("right if `{}` lay transposed{how}", tensor.name));
        }
    }
    None
}

/// What holds at all shapes, and may surprise.
pub(super) fn remarks(interface: &Interface, spec: &Spec) -> Vec<String> {
    let mut all = Vec::new();
    for tensor in spec.inputs() {
        match interface.find(&tensor.name) {
            None => all.push(format!("`{}` is an input, and nothing is bound to it", tensor.name)),
            Some(bound) if bound.stored == Stored::U32 && bound.stored.is_half(tensor.element) => {
                all.push(format!("`{}` holds u32: two f16 in each", tensor.name));
            }
            Some(_) => {}
        }
    }
    all
}

/// A message of several lines as one.
pub(super) fn in_a_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut lines: Vec<&str> = lines.filter(|line| *line != "Caused by:").collect();
    if lines.len() > 1 {
        lines.retain(|line| *line != "Validation Error");
    }
    lines.join(" ")
}
