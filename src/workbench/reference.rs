//! What should come out where a file describes it: a formula's scale, another kernel's results.

use super::error::{Error, Result};
use super::expected::Expected;
use super::interpreter::{End, Options, Refusal};
use super::source::{Settings, Source};
use super::spec::{Shape, Spec};
use super::trial::{Trial, Unfit, interface, interpreter, is_dangerous, numbers};

/// Statements that a reference may take.
const MOST: u64 = 50_000_000;

/// Formulas do not tell what was added up: the greatest element stands for it.
pub(super) fn loosen(expected: &mut [Vec<Expected>]) {
    let finite = expected.iter().flatten().map(|e| e.value.abs()).filter(|v| v.is_finite());
    let greatest = finite.fold(0.0, f64::max);
    expected.iter_mut().flatten().for_each(|e| e.scale = e.scale.max(greatest));
}

/// What another kernel gives, executed as it is written.
pub(super) fn by_kernel(
    other: &Source,
    spec: &Spec,
    shape: &Shape,
) -> Result<Vec<Vec<Vec<Expected>>>> {
    let failed = |why: String| Error::Kernel { kernel: other.name.clone(), message: why };
    let none = Settings::new();
    let wgsl = other.wgsl(&none)?;
    let module = naga::front::wgsl::parse_str(&wgsl.text)
        .map_err(|error| failed(error.message().to_string()))?;
    let interface = interface(other, spec, &none, &wgsl, &module)?;
    let trial = match Trial::new(other, spec, &none, &interface, shape) {
        Ok(trial) => trial,
        Err(Unfit::Failed(error)) => return Err(error),
        Err(Unfit::Needs(why)) => return Err(failed(why)),
    };
    let numbers = numbers(other, spec, &none, &trial.sizes)?;
    let machine = interpreter(&wgsl.text, &numbers).map_err(|Refusal(why)| failed(why))?;
    let options =
        Options { subgroup: 32, overflow: false, most: MOST, rounds: MOST, corners: false };
    let (outputs, executed) =
        trial.interpret(&machine, &interface, spec, options).map_err(|Refusal(why)| failed(why))?;
    if executed.end != End::Whole {
        return Err(failed(format!("the reference takes too long at {}", shape.label)));
    }
    if let Some(seen) = executed.sightings.iter().find(|seen| is_dangerous(seen.kind)) {
        let (kind, what) = (seen.kind, wgsl.with_places(&seen.what));
        let place = seen.line.map_or_else(String::new, |line| format!("{}: ", wgsl.place(line)));
        return Err(failed(format!("the reference has a fault itself: {kind}: {place}{what}")));
    }
    let mut all = Vec::new();
    for (output, tensor) in outputs.iter().zip(spec.outputs()) {
        let width = spec.extents(tensor, &trial.sizes).last().copied().unwrap_or(1).max(1);
        let one = |&value: &f64| Expected { value, scale: value.abs() };
        let mut rows: Vec<Vec<Expected>> =
            output.values.chunks(width).map(|row| row.iter().map(one).collect()).collect();
        loosen(&mut rows);
        all.push(rows);
    }
    Ok(all)
}
