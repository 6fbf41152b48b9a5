//! A kernel against the reference, at shapes of all sorts: executed as it is written, where every
//! access is looked at, and on a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compare::{Found, Tolerance, Verdict, is_of_places_alone, place};
use super::edge::{is_right as is_right_at, unlike};
use super::error::{Error, Result};
use super::expected::Expected;
use super::fault::{Fault, FaultKind};
use super::hints::{remarks, transposed};
use super::interface::{Interface, decoded};
use super::interpreter::{End, Executed, Interpreter, Options, Refusal, Sighting};
use super::on_device::{Ran, on_device, too_much_memory};
use super::reference::{by_kernel, loosen};
use super::report::{CheckReport, Checked};
use super::source::{Settings, Source, Wgsl};
use super::spec::{Fill, Reference, Shape, Spec, Tensor};
use super::trial::{
    Output, Trial, Unfit, interface, interpreter, is_dangerous, numbers, subgroups, tolerance,
};
use crate::backend::wgpu::Gpu;

/// Statements of workgroups that are executed at most; those of many invocations count more.
const MOST: u64 = 12_000_000;
/// Rounds after which a loop counts as endless, unless a workgroup's work is as much.
const ROUNDS: u64 = 20_000;
/// What WebGPU's devices have at most, as good as all of them, and what they have at least.
const INVOCATIONS: [u32; 2] = [1024, 256];
/// As many bytes of workgroup memory.
const MEMORY: [u64; 2] = [65_536, 16_384];
const WORKGROUPS: u32 = 65_535;
/// Rows of a huge result that are compared.
const SAMPLED: usize = 48;

/// How a kernel is looked at.
#[derive(Clone, Default)]
pub struct CheckOptions {
    /// Parameters that are not the first of those that the header names.
    pub settings: Settings,
    /// Where it is run, too.
    pub device: Option<Arc<Gpu>>,
    /// Only at shapes whose label contains this.
    pub only: Option<String>,
    /// Shapes to look at beside the kind's own; large ones are executed in part.
    pub shapes: Vec<Vec<usize>>,
}

/// Checks a kernel.
///
/// # Errors
/// A kernel that cannot be run at all; a device that failed. Faults are no errors.
pub fn check(source: &Source, spec: &Spec, options: &CheckOptions) -> Result<CheckReport> {
    let wgsl = source.wgsl(&options.settings)?;
    let mut checking = Checking::new(source, spec, options, wgsl)?;
    let asked: Vec<Shape> = options.shapes.iter().map(|sizes| asked(spec, sizes)).collect();
    let all = || spec.shapes.iter();
    let only = options.only.as_ref().map(|only| only.to_lowercase());
    let is_wanted =
        |shape: &&Shape| only.as_ref().is_none_or(|only| shape.label.to_lowercase().contains(only));
    let wanted: Vec<&Shape> = all().filter(is_wanted).collect();
    if let (Some(only), true) = (&options.only, wanted.is_empty()) {
        let labels: Vec<&str> = all().map(|shape| shape.label.as_str()).collect();
        return Err(Error::unknown(format!("shape of {}", spec.name), only, &labels));
    }
    // What is asked for by its sizes is wanted, whatever names are.
    for shape in wanted.into_iter().chain(&asked) {
        checking.shape(shape)?;
    }
    checking.finish()
}

/// Products and elements above which a shape counts as huge.
const HUGE: f64 = 400_000.0;

fn asked(spec: &Spec, sizes: &[usize]) -> Shape {
    let of_sizes: Vec<f64> = sizes.iter().map(|&size| size as f64).collect();
    let outputs: usize = spec.outputs().map(|tensor| spec.elements(tensor, sizes)).sum();
    let work = spec.terms.number(&of_sizes).max(1.0) * outputs as f64;
    Shape {
        label: "asked for".into(),
        sizes: sizes.to_vec(),
        fill: Fill::Ordinary,
        huge: work > HUGE,
    }
}

struct Checking<'a> {
    source: &'a Source,
    spec: &'a Spec,
    options: &'a CheckOptions,
    wgsl: Wgsl,
    interface: Interface,
    report: CheckReport,
    faults: BTreeMap<(FaultKind, Option<String>, Option<usize>), Fault>,
    notes: BTreeMap<String, Vec<String>>,
}

/// What holds for one shape while it is looked at.
struct Here<'a> {
    shape: &'a Shape,
    trial: &'a Trial,
    /// `ragged: rows 33, columns 17`.
    told: String,
    /// Rows of each output that are compared.
    rows: Vec<Vec<usize>>,
    expected: Vec<Vec<Vec<Expected>>>,
    seen: Vec<FaultKind>,
    worst: Option<(f64, f64, String)>,
}

impl<'a> Checking<'a> {
    fn new(
        source: &'a Source,
        spec: &'a Spec,
        options: &'a CheckOptions,
        wgsl: Wgsl,
    ) -> Result<Checking<'a>> {
        let module = naga::front::wgsl::parse_str(&wgsl.text)
            .map_err(|error| source.failed(error.message()))?;
        let interface = interface(source, spec, &options.settings, &wgsl, &module)?;
        let mut report = CheckReport::empty(&source.name, &format!("{}: {}", spec.name, spec.what));
        report.device = options.device.as_ref().map(|gpu| gpu.name().to_string());
        report.notes = remarks(&interface, spec);
        Ok(Checking {
            source,
            spec,
            options,
            wgsl,
            interface,
            report,
            faults: BTreeMap::new(),
            notes: BTreeMap::new(),
        })
    }

    fn note(&mut self, what: impl Into<String>, label: &str) {
        let labels = self.notes.entry(what.into()).or_default();
        if !labels.iter().any(|known| known == label) {
            labels.push(label.to_string());
        }
    }

    fn shape(&mut self, shape: &Shape) -> Result<()> {
        let (source, spec) = (self.source, self.spec);
        // A reference that is executed itself would take too long.
        let by_kernel = matches!(spec.reference, Reference::Kernel(_));
        if shape.huge && by_kernel && self.options.device.is_none() {
            if self.options.only.is_some() {
                self.note("left out: so large a shape is for devices alone", &shape.label);
            }
            return Ok(());
        }
        let trial = match Trial::new(source, spec, &self.options.settings, &self.interface, shape) {
            Ok(trial) => trial,
            Err(Unfit::Failed(error)) => return Err(error),
            Err(Unfit::Needs(why)) => {
                self.note(format!("left out: {why}"), &shape.label);
                return Ok(());
            }
        };
        let told = format!("{}: {}", shape.label, spec.told(&trial.sizes));
        let mut here = Here {
            shape,
            trial: &trial,
            told,
            rows: Vec::new(),
            expected: Vec::new(),
            seen: Vec::new(),
            worst: None,
        };
        self.expect(&mut here)?;
        if !self.is_comparable(&here)? {
            return Ok(());
        }
        let is_possible = self.look_at_grid(&mut here);
        let mut interpreted = false;
        if !(shape.huge && by_kernel) && is_possible {
            interpreted = self.interpret(&mut here)?;
        }
        let mut on_device = false;
        if let Some(gpu) = self.options.device.clone() {
            let dangers: Vec<&str> =
                self.faults.keys().filter(|key| is_dangerous(key.0)).map(|k| k.0.name()).collect();
            match dangers.first() {
                Some(danger) => {
                    self.note(format!("not run on the device because of: {danger}"), &shape.label);
                }
                None if self.is_too_much(&here) => {}
                None => on_device = self.on_device(&gpu, &mut here)?,
            }
        }
        if !interpreted && !on_device {
            return Ok(());
        }
        let tolerance = self.tolerance(&here);
        let (error, at) = match here.worst {
            Some((_, error, at)) => (Some(error), Some(at)),
            None => (None, None),
        };
        here.seen.sort_unstable();
        here.seen.dedup();
        self.report.shapes.push(Checked {
            label: shape.label.clone(),
            sizes: spec.told(&trial.sizes),
            interpreted,
            on_device,
            error,
            allowed: tolerance.relative(),
            at,
            faults: here.seen,
        });
        Ok(())
    }

    /// Whether devices are known not to have as much as this takes.
    fn is_too_much(&self, here: &Here<'_>) -> bool {
        here.seen.contains(&FaultKind::TooMany)
    }

    /// Whether there is something to compare with; a reference that gives nothing is an error.
    fn is_comparable(&mut self, here: &Here<'_>) -> Result<bool> {
        let all = || here.expected.iter().flatten().flatten();
        let failed = |why: &str| Error::Kernel {
            kernel: self.spec.name.clone(),
            message: format!("{why} at {}: nothing can be compared with it", here.told),
        };
        let ordinary = here.shape.fill == Fill::Ordinary;
        if ordinary && all().next().is_some() && !all().any(|e| e.value.is_finite()) {
            return Err(failed("the reference gives infinities, or what is no number, alone"));
        }
        if self.tolerance(here).of_scale >= 1.0 {
            return Err(failed("results may be off by as much as they are"));
        }
        let greatest = f64::from(half::f16::MAX);
        let too_large = |e: &Expected| e.value.is_finite() && e.value.abs() > greatest;
        if !ordinary && self.interface.holds_halves(self.spec) && all().any(too_large) {
            self.note("left out: results that f16 cannot hold", &here.shape.label);
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether devices have as many workgroups.
    fn look_at_grid(&mut self, here: &mut Here<'_>) -> bool {
        if let Some(count) = here.trial.grid.iter().find(|&&count| count > WORKGROUPS) {
            let what = format!("{count} workgroups in a dimension, devices have {WORKGROUPS}");
            self.see(here, FaultKind::TooMany, None, what);
            return false;
        }
        true
    }

    fn look_at_workgroup(&mut self, here: &mut Here<'_>, interpreter: &Interpreter) {
        let Some(entry) = interpreter.module().entry_points.first() else { return };
        let size = entry.workgroup_size;
        let all = size.iter().fold(1, |all: u32, &one| all.saturating_mul(one));
        let [most, least] = INVOCATIONS;
        if all > most {
            let what = format!("{all} invocations in a workgroup, devices have {most}");
            self.see(here, FaultKind::TooMany, None, what);
        } else if all > least {
            let what = format!("{all} invocations in a workgroup: some devices have {least}");
            if !self.report.notes.contains(&what) {
                self.report.notes.push(what);
            }
        }
        let (bytes, [most, least]) = (interpreter.workgroup_bytes(), MEMORY);
        let gpu = self.options.device.as_ref();
        let lacks = gpu.and_then(|gpu| too_much_memory(gpu, &self.wgsl.text, here.trial));
        if let Some(what) = lacks {
            self.see(here, FaultKind::TooMany, None, what);
        } else if bytes > most {
            let what = format!("{bytes} bytes of workgroup memory, devices have {most} at most");
            self.see(here, FaultKind::TooMany, None, what);
        } else if bytes > least {
            let what = format!("{bytes} bytes of workgroup memory: some devices have {least}");
            if !self.report.notes.contains(&what) {
                self.report.notes.push(what);
            }
        }
    }

    /// Computes what should come out.
    fn expect(&mut self, here: &mut Here<'_>) -> Result<()> {
        let (spec, trial) = (self.spec, here.trial);
        for (index, tensor) in spec.outputs().enumerate() {
            let extents = spec.extents(tensor, &trial.sizes);
            let width = extents.last().copied().unwrap_or(1).max(1);
            let count = spec.elements(tensor, &trial.sizes) / width;
            let rows: Vec<usize> = match here.shape.huge && count > SAMPLED {
                false => (0..count).collect(),
                // Spread, with the first and the last.
                true => (0..SAMPLED).map(|i| i * (count - 1) / (SAMPLED - 1)).collect(),
            };
            if let Reference::Kernel(_) = spec.reference {
                here.rows.push(rows);
                continue;
            }
            let mut expected = spec.expected(index, &trial.sizes, &trial.inputs(), &rows)?;
            if let Reference::Formulas(_) = spec.reference {
                loosen(&mut expected);
            }
            here.expected.push(expected);
            here.rows.push(rows);
        }
        if let Reference::Kernel(other) = &spec.reference {
            here.expected = by_kernel(other, spec, here.shape)?;
        }
        Ok(())
    }

    /// How far results may be off at a shape.
    fn tolerance(&self, here: &Here<'_>) -> Tolerance {
        tolerance(self.source, self.spec, &self.interface, &here.trial.sizes)
    }

    fn see(&mut self, here: &mut Here<'_>, kind: FaultKind, line: Option<usize>, what: String) {
        self.see_times(here, kind, line, what, 1);
    }

    fn see_times(
        &mut self,
        here: &mut Here<'_>,
        kind: FaultKind,
        line: Option<usize>,
        what: String,
        times: u64,
    ) {
        here.seen.push(kind);
        let place = line.map(|line| self.wgsl.origin(line));
        let (file, line) = place.clone().unzip();
        let fault = self
            .faults
            .entry((kind, file, line))
            .or_insert_with(|| Fault::new(kind, place, what, &here.told));
        fault.count(&here.told, times);
    }

    /// Executes the kernel with subgroups of several sizes, if it knows of them; false where it
    /// cannot be.
    fn interpret(&mut self, here: &mut Here<'_>) -> Result<bool> {
        let interpreter = match interpreter(&self.wgsl.text, &here.trial.numbers) {
            Ok(interpreter) => interpreter,
            Err(Refusal(why)) => {
                self.note(format!("not interpreted: {why}"), &here.shape.label);
                return Ok(false);
            }
        };
        self.look_at_workgroup(here, &interpreter);
        if interpreter.workgroup_bytes() > MEMORY[0] {
            return Ok(true);
        }
        let what = "with cooperative matrices: executed with subgroups of 32 alone";
        if interpreter.uses_matrices() && !self.report.notes.iter().any(|note| note == what) {
            self.report.notes.push(what.into());
        }
        let ordinary = !matches!(here.shape.fill, Fill::NotANumber | Fill::Infinite);
        let sizes: Vec<f64> = here.trial.sizes.iter().map(|&size| size as f64).collect();
        let spec = self.spec;
        let elements: usize =
            spec.outputs().map(|tensor| spec.elements(tensor, &here.trial.sizes)).sum();
        let work = spec.terms.number(&sizes).max(1.0) * elements as f64;
        let groups: f64 = here.trial.grid.iter().map(|&count| f64::from(count)).product();
        let rounds = ROUNDS.max((4.0 * work / groups.max(1.0)) as u64);
        let mut verdicts: Vec<(u32, Verdict)> = Vec::new();
        for &subgroup in subgroups(&interpreter) {
            let options =
                Options { subgroup, overflow: ordinary, most: MOST, rounds, corners: false };
            let (outputs, executed) = match self.execute(&interpreter, here, options) {
                Ok(done) => done,
                Err(Refusal(why)) => {
                    self.note(format!("not interpreted: {why}"), &here.shape.label);
                    return Ok(false);
                }
            };
            let Executed { sightings, end, in_part, .. } = executed;
            for Sighting { kind, line, what, times } in sightings {
                let what = self.wgsl.with_places(&what);
                self.see_times(here, kind, line, what, times);
            }
            match end {
                End::Whole => {}
                End::Endless => return Ok(true),
                End::TooLong => {
                    let groups: u64 =
                        here.trial.grid.iter().map(|&count| u64::from(count)).product();
                    let what = format!(
                        "not interpreted: too long, more than {MOST} statements of {groups} \
                         workgroups"
                    );
                    self.note(what, &here.shape.label);
                    return Ok(false);
                }
            }
            if in_part {
                self.note("executed at the corners and in the middle alone", &here.shape.label);
            }
            let mut verdict = Verdict::default();
            for (index, output) in outputs.iter().enumerate() {
                let found = &output.values;
                let one = self.compared(here, index, found, Some(&output.written), in_part);
                join(&mut verdict, one);
            }
            if in_part && verdict.worst.is_none() {
                self.note("nothing of what was executed is compared", &here.shape.label);
            }
            // What comes of writing elsewhere, or in no order, has no shape of its own.
            let spoilt = [FaultKind::OutOfBoundsWrite, FaultKind::Race, FaultKind::MissingBarrier];
            if here.seen.iter().any(|kind| spoilt.contains(kind)) {
                for (kind, what) in &mut verdict.faults {
                    let named = matches!(kind, FaultKind::WrongStride | FaultKind::RaggedEdge);
                    if named && is_of_places_alone(what) {
                        *kind = FaultKind::WrongValues;
                    }
                }
            }
            let mut faults = verdict.faults.iter_mut();
            let wrong = faults.find(|(kind, _)| {
                use FaultKind::{RaggedEdge, WrongStride, WrongValues};
                matches!(kind, WrongValues | WrongStride | RaggedEdge)
            });
            if let Some((kind, what)) = wrong
                && let Some(why) = transposed(
                    self.spec,
                    here.trial,
                    &here.rows,
                    &outputs,
                    self.tolerance(here),
                    in_part,
                )
            {
                *kind = FaultKind::WrongStride;
                *what += &format!("; {why}");
            }
            verdicts.push((subgroup, verdict));
        }
        self.judge(here, verdicts);
        Ok(true)
    }

    fn execute(
        &self,
        interpreter: &Interpreter,
        here: &Here<'_>,
        options: Options,
    ) -> Result<(Vec<Output>, Executed), Refusal> {
        let (trial, interface) = (here.trial, &self.interface);
        match here.shape.huge {
            true => trial.interpret_large(interpreter, interface, self.spec, options),
            false => trial.interpret(interpreter, interface, self.spec, options),
        }
    }

    fn compared(
        &self,
        here: &Here<'_>,
        index: usize,
        values: &[f64],
        written: Option<&[bool]>,
        in_part: bool,
    ) -> Verdict {
        let Some(tensor) = self.spec.outputs().nth(index) else { return Verdict::default() };
        let extents = self.spec.extents(tensor, &here.trial.sizes);
        let found = Found {
            name: &tensor.name,
            extents: &extents,
            rows: &here.rows[index],
            expected: &here.expected[index],
            values,
            written,
            in_part,
        };
        found.verdict(self.tolerance(here))
    }

    /// Keeps what comparisons found: the same with all subgroups, or something that hangs on them.
    fn judge(&mut self, here: &mut Here<'_>, verdicts: Vec<(u32, Verdict)>) {
        let right: Vec<u32> =
            verdicts.iter().filter(|(_, v)| v.faults.is_empty()).map(|(n, _)| *n).collect();
        let wrong: Vec<u32> =
            verdicts.iter().filter(|(_, v)| !v.faults.is_empty()).map(|(n, _)| *n).collect();
        if !right.is_empty() && !wrong.is_empty() {
            let list =
                |sizes: &[u32]| sizes.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let seen = verdicts.iter().find_map(|(_, verdict)| verdict.faults.first().cloned());
            let seen = seen.map(|(kind, what)| format!(": {kind}: {what}")).unwrap_or_default();
            let what = format!(
                "right with subgroups of {}, wrong with {}{seen}",
                list(&right),
                list(&wrong)
            );
            self.see(here, FaultKind::SubgroupSize, None, what);
        }
        let all_wrong = right.is_empty();
        for (number, (_, verdict)) in verdicts.into_iter().enumerate() {
            self.keep_worst(here, &verdict);
            if verdict.swallowed > 0 && number == 0 {
                self.note(
                    "finite results where the reference has none: what is no number is passed over",
                    &here.shape.label,
                );
            }
            if all_wrong && number == 0 {
                for (kind, what) in verdict.faults {
                    self.see(here, kind, None, what);
                }
            }
        }
    }

    fn keep_worst(&self, here: &mut Here<'_>, verdict: &Verdict) {
        let Some(worst) = &verdict.worst else { return };
        if here.worst.as_ref().is_some_and(|(share, ..)| *share >= worst.share) {
            return;
        }
        let tensor: Option<&Tensor> = self.spec.outputs().next();
        let at = tensor.map_or_else(String::new, |tensor| {
            let extents = self.spec.extents(tensor, &here.trial.sizes);
            place(&tensor.name, &extents, worst.row, worst.column)
        });
        here.worst = Some((worst.share, worst.error, at));
    }

    /// Runs the kernel on the device; false where nothing was run.
    fn on_device(&mut self, gpu: &Arc<Gpu>, here: &mut Here<'_>) -> Result<bool> {
        if self.interface.cooperative && !gpu.has_matrices() {
            self.note("not run on the device: no cooperative matrices there", &here.shape.label);
            return Ok(false);
        }
        let module = naga::front::wgsl::parse_str(&self.wgsl.text)
            .map_err(|error| self.source.failed(error.message()))?;
        let name = &self.source.name;
        let ran = on_device(gpu, name, &module, &self.interface, self.spec, here.trial);
        for note in ran.notes {
            self.note(note, &here.shape.label);
        }
        for (kind, what) in ran.faults {
            self.see(here, kind, None, what);
        }
        match ran.end {
            Ran::Not => return Ok(false),
            Ran::Refused => return Ok(true),
            Ran::Left(outputs) => self.judge_device(gpu, here, &outputs),
        }
        Ok(true)
    }

    /// Compares what the device left with the reference.
    fn judge_device(&mut self, gpu: &Gpu, here: &mut Here<'_>, outputs: &[Vec<u8>]) {
        let already = !here.seen.is_empty();
        let mut verdict = Verdict::default();
        for (index, tensor) in self.spec.outputs().enumerate() {
            let Some(bound) = self.interface.find(&tensor.name) else { continue };
            let elements = self.spec.elements(tensor, &here.trial.sizes);
            let values = decoded(&outputs[index], bound.stored, tensor.element, elements);
            join(&mut verdict, self.compared(here, index, &values, None, false));
        }
        self.keep_worst(here, &verdict);
        if let (false, Some((kind, what))) = (already, verdict.faults.first()) {
            let waits = self.wgsl.text.contains("atomicCompareExchange");
            if gpu.name().contains("llvmpipe") && waits {
                let what = "llvmpipe leaves a loop after 65535 rounds, as one may take that waits \
                            for an exchange";
                self.note(what, &here.shape.label);
            }
            // The interpreter found nothing, so it is the device that is wrong, if it looked.
            match here.shape.huge {
                true => self.see(here, *kind, None, what.clone()),
                false => {
                    let what = format!("{} gives {kind}: {what}", gpu.name());
                    self.see(here, FaultKind::DeviceDiffers, None, what);
                }
            }
        }
    }

    /// Whether devices have as many workgroups at the shapes of models' networks.
    fn look_at_models(&mut self) -> Result<()> {
        let (source, spec) = (self.source, self.spec);
        for set in ["sd15", "sdxl"] {
            for sizes in spec.shapes_of(set).unwrap_or_default() {
                let numbers = numbers(source, spec, &self.options.settings, &sizes)?;
                let grid = source.suits(&numbers)?.then(|| source.grid(&numbers).ok()).flatten();
                let many = grid.unwrap_or_default().into_iter().find(|count| *count > WORKGROUPS);
                if let Some(count) = many {
                    let at = format!("{set}'s {}", spec.told(&sizes));
                    let what = format!(
                        "{count} workgroups in a dimension, devices have {WORKGROUPS}: not for \
                         such sizes"
                    );
                    self.note(what, &at);
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<CheckReport> {
        // Where something was left out, and what remains has no element, nothing is proved.
        let compared = self.report.shapes.iter().any(|shape| shape.error.is_some());
        let idle = self.report.shapes.is_empty() || !compared && !self.notes.is_empty();
        if idle && self.faults.is_empty() {
            let why: Vec<&str> = self.notes.keys().map(String::as_str).collect();
            return Err(self.source.failed(format!(
                "none of the shapes suits it: {}",
                if why.is_empty() { "none was asked for".into() } else { why.join("; ") }
            )));
        }
        self.rename_edges();
        self.look_at_models()?;
        self.report.faults = self.faults.into_values().collect();
        self.report.faults.sort_by_key(|fault| (fault.line.is_none(), fault.kind, fault.line));
        let notes = self.notes.into_iter();
        self.report
            .notes
            .extend(notes.map(|(what, labels)| format!("{what} ({})", labels.join(", "))));
        Ok(self.report)
    }

    /// Values that are wrong at ragged sizes are wrong at an edge along what is added up, if they
    /// are right at sizes of whole tiles, no two of which are alike.
    fn rename_edges(&mut self) {
        let wrong = (FaultKind::WrongValues, None, None);
        let shape = |label: &str| self.report.shapes.iter().find(|shape| shape.label == label);
        let is_right = |label: &str| shape(label).is_none_or(|shape| shape.faults.is_empty());
        // Other batches are no edge, nor are other numbers.
        let is_edge = shape("ordinary").is_some()
            && ["ordinary", "batches"].into_iter().all(is_right)
            && shape("ragged").is_some_and(|s| s.faults.contains(&FaultKind::WrongValues));
        let ordinary = self.spec.shapes.iter().find(|shape| shape.label == "ordinary");
        let (true, Some(ordinary), true) = (is_edge, ordinary, self.faults.contains_key(&wrong))
        else {
            return;
        };
        let sizes = unlike(&ordinary.sizes);
        let settings = &self.options.settings;
        let right = sizes == ordinary.sizes
            || is_right_at(self.source, self.spec, settings, &self.wgsl, &self.interface, &sizes)
                == Some(true);
        if !right {
            return;
        }
        let Some(mut fault) = self.faults.remove(&wrong) else { return };
        fault.kind = FaultKind::RaggedEdge;
        fault.what += &format!("; right at {}", self.spec.told(&sizes));
        for shape in &mut self.report.shapes {
            for kind in &mut shape.faults {
                if *kind == FaultKind::WrongValues {
                    *kind = FaultKind::RaggedEdge;
                }
            }
        }
        self.faults.entry((FaultKind::RaggedEdge, None, None)).or_insert(fault);
    }
}

fn join(all: &mut Verdict, one: Verdict) {
    all.faults.extend(one.faults);
    all.swallowed += one.swallowed;
    let share = |verdict: &Verdict| verdict.worst.as_ref().map_or(-1.0, |worst| worst.share);
    if one.worst.as_ref().is_some_and(|worst| worst.share > share(all)) {
        all.worst = one.worst;
    }
}
