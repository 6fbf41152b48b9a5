//! Whether a kernel may run without bounds checks.

use super::check::{CheckOptions, check};
use super::error::Result;
use super::fault::Fault;
use super::interpreter::{End, Options, Refusal, Sighting};
use super::source::{Settings, Source};
use super::spec::{Fill, Shape, Spec};
use super::trial::{Trial, Unfit, interface, interpreter, is_dangerous, subgroups};

/// How much is known of a kernel at some sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It stays within its bindings there.
    Known,
    /// It does at the corners of the grid and in its middle.
    AtCorners,
    /// It does as far as it was executed there, which takes too long to the end; at small shapes
    /// it does everywhere.
    InPart,
    /// Nothing: it cannot be executed as it is written.
    None,
}

impl Trust {
    /// What a report says of it, if anything.
    pub fn told(self) -> Option<&'static str> {
        match self {
            Trust::Known => None,
            Trust::AtCorners => Some(
                "executed as it is written at the corners of the grid and in its middle alone; it \
                 runs without bounds checks",
            ),
            Trust::InPart => Some(
                "executed as it is written in part, as all takes too long; it runs without bounds \
                 checks",
            ),
            Trust::None => {
                Some("cannot be executed as it is written, so it runs with bounds checks")
            }
        }
    }
}

/// Statements of workgroups that are executed at most, with each size of subgroups.
const MOST: u64 = 1_500_000;
/// Elements of outputs whose accesses are kept at most.
const WATCHED: usize = 1 << 24;

/// Executes a kernel as it is written: at these sizes, and at small shapes where that takes too
/// long.
///
/// # Errors
/// An access out of bounds, a loop that does not end, or a barrier in divergent control flow: such
/// a kernel is not run at all.
pub(super) fn trust(
    source: &Source,
    settings: &Settings,
    spec: &Spec,
    sizes: &[usize],
) -> Result<Trust> {
    match at(source, settings, spec, sizes)? {
        Trust::InPart if !is_safe_when_small(source, settings, spec)? => Ok(Trust::None),
        found => Ok(found),
    }
}

fn at(source: &Source, settings: &Settings, spec: &Spec, sizes: &[usize]) -> Result<Trust> {
    let wgsl = source.wgsl(settings)?;
    let module = naga::front::wgsl::parse_str(&wgsl.text)
        .map_err(|error| source.failed(error.message().to_string()))?;
    let interface = interface(source, spec, settings, &wgsl, &module)?;
    let label = "asked for".to_string();
    let shape = Shape { label, sizes: sizes.to_vec(), fill: Fill::Ordinary, huge: true };
    let trial = match Trial::new(source, spec, settings, &interface, &shape) {
        Ok(trial) => trial,
        // Nor will it be run there.
        Err(Unfit::Needs(_)) => return Ok(Trust::None),
        Err(Unfit::Failed(error)) => return Err(error),
    };
    let elements: usize = spec.outputs().map(|tensor| spec.elements(tensor, &trial.sizes)).sum();
    if elements > WATCHED {
        return Ok(Trust::InPart);
    }
    let Ok(interpreter) = interpreter(&wgsl.text, &trial.numbers) else { return Ok(Trust::None) };
    let mut trust = Trust::Known;
    for &subgroup in subgroups(&interpreter) {
        let options =
            Options { subgroup, overflow: false, most: MOST, rounds: MOST, corners: false };
        let executed = match trial.interpret_large(&interpreter, &interface, spec, options) {
            Ok((_, executed)) => executed,
            Err(Refusal(_)) => return Ok(Trust::None),
        };
        let danger = executed.sightings.into_iter().find(|seen| is_dangerous(seen.kind));
        if let Some(Sighting { kind, line, what, .. }) = danger {
            let (what, place) = (wgsl.with_places(&what), line.map(|line| wgsl.origin(line)));
            let fault = Fault::new(kind, place, what, &spec.told(&trial.sizes));
            return Err(source.failed(format!("it is not run: {fault}")).faulty());
        }
        if executed.end != End::Whole {
            trust = Trust::InPart;
        } else if executed.in_part && trust == Trust::Known {
            trust = Trust::AtCorners;
        }
    }
    Ok(trust)
}

/// Whether a kernel could be executed at small shapes, and stayed within its bindings.
fn is_safe_when_small(source: &Source, settings: &Settings, spec: &Spec) -> Result<bool> {
    let mut small = spec.clone();
    small
        .shapes
        .retain(|shape| shape.fill == Fill::Ordinary && !shape.huge && !shape.sizes.contains(&0));
    let is_named = |shape: &Shape| ["ragged", "tiny"].contains(&shape.label.as_str());
    if small.shapes.iter().any(is_named) {
        small.shapes.retain(is_named);
    }
    small.shapes.truncate(2);
    let options = CheckOptions { settings: settings.clone(), ..CheckOptions::default() };
    // What cannot be executed at all is told where it is compiled.
    let Ok(report) = check(source, &small, &options) else { return Ok(false) };
    match report.faults.iter().find(|fault| is_dangerous(fault.kind)) {
        Some(fault) => Err(source.failed(format!("it is not run: {fault}")).faulty()),
        None => Ok(!report.shapes.is_empty()),
    }
}
