//! This program's own kernels, as plans dispatch them, executed as they are written.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::cases::{Case, MadeUp, cases, quant_of};
use super::compare::{Found, Tolerance};
use super::error::{Error, Result};
use super::expected::Expected;
use super::fault::{Fault, FaultKind};
use super::interface::{Interface, decoded, encoded};
use super::interpreter::{Binding, End, Executed, Interpreter, Options, Refusal, Region};
use super::report::{CheckReport, Checked};
use super::source::{Source, Wgsl};
use super::spec::Element;
use crate::backend::wgpu::{
    self, BufferView, Command, Gpu, Held, Matrices, Params, Scalar, Schedule, Selection, Slice,
    Storage, Traits, Uniform, Value, kernel_names, packed, packed_blocks, render_own,
};
use crate::graph::{Array, Graph, Origin, Place, Plan, Shape, Tensor};

const MOST: u64 = 40_000_000;
const ROUNDS: u64 = 5_000_000;

/// A kernel of this program with the parameters of one of its uses.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its name.
    pub kernel: &'static str,
    params: Params,
}

impl Variant {
    /// The WGSL; of `source` instead of the shipped text, if that is its kernel.
    ///
    /// # Errors
    /// A template that cannot be rendered with these parameters.
    pub fn wgsl(&self, source: &Source) -> Result<Wgsl> {
        let params: BTreeMap<String, Value> =
            self.params.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        let rendered = render_own(&source.name, source.text(), &params)?;
        Ok(Wgsl::of(source, rendered))
    }
}

/// The uses of a kernel of this program by the operations that need it, each once.
///
/// # Errors
/// No kernel of that name; a case that cannot be planned.
pub fn variants(kernel: &str) -> Result<Vec<Variant>> {
    Source::own(kernel)?;
    let mut found: Vec<Variant> = Vec::new();
    for case in cases()? {
        for lowered in lowered_by_all(&case)? {
            for command in &lowered.commands {
                let Command::Dispatch { kernel: name, params, .. } = command else { continue };
                let known = found.iter().any(|variant| variant.params == *params);
                if *name == kernel && !known {
                    found.push(Variant { kernel: name, params: params.clone() });
                }
            }
        }
    }
    Ok(found)
}

/// Executes every use of this program's kernels, or of `only` one of them, whose text may be
/// another one's: reports for each kernel that is dispatched.
///
/// # Errors
/// A kernel that cannot be rendered; a case that cannot be planned; `tell` that says no.
pub fn check_shipped(
    only: Option<&Source>,
    tell: &mut dyn FnMut(&str, usize, usize) -> bool,
) -> Result<Vec<CheckReport>> {
    let mut reports: BTreeMap<String, CheckReport> = BTreeMap::new();
    let mut faults: BTreeMap<(String, FaultKind, Option<usize>), Fault> = BTreeMap::new();
    let all = cases()?;
    let of = all.len();
    for (number, case) in all.into_iter().enumerate() {
        if !tell(&case.name, number, of) {
            return Err(Error::Cancelled);
        }
        for lowered in lowered_by_all(&case)? {
            let uses = |source: &Source| lowered.uses(&kernel_of(source));
            if only.is_none_or(uses) {
                lowered.run(&case, only, &mut reports, &mut faults)?;
            }
        }
    }
    for ((kernel, ..), fault) in faults {
        if let Some(report) = reports.get_mut(&kernel) {
            report.faults.push(fault);
        }
    }
    if let Some(source) = only {
        let wanted = kernel_of(source);
        reports.retain(|kernel, _| *kernel == wanted);
        if reports.is_empty() {
            return Err(source.failed("no case of the workbench dispatches it"));
        }
    }
    Ok(reports.into_values().collect())
}

/// The name of this program's kernel that a source stands for.
fn kernel_of(source: &Source) -> String {
    let stem = source.path.as_ref().and_then(|path| path.file_stem()?.to_str());
    stem.unwrap_or(&source.name).to_string()
}

/// Whether a file is called as one of this program's kernels, and does not say what it is for.
pub fn stands_for_own(source: &Source) -> bool {
    source.kind.is_none() && kernel_names().contains(&kernel_of(source))
}

/// What cards have: matrices of 16 x 16, subgroups of 32.
const MATRICES: Matrices =
    Matrices { size: 16, lanes: 32, varying: false, attention: true, wide: true };
/// How far results by matrices may be off, whose factors are rounded to f16, relative to the
/// greatest.
const BY_MATRICES: f32 = 4e-3;

/// A case without cooperative matrices, and with them where that makes a difference.
fn lowered_by_all(case: &Case) -> Result<Vec<Lowered<'_>>> {
    let staged = *floor()?.traits();
    let traits = Traits { schedule: Schedule::Matrices(MATRICES), ..staged };
    let mut all = vec![Lowered::new(case, staged, case.tolerance)?];
    let tolerance = case.tolerance.map(|tolerance| tolerance.max(BY_MATRICES));
    let by_matrices = Lowered::new(case, traits, tolerance)?;
    let kernels = by_matrices.commands.iter().filter_map(|command| match command {
        Command::Dispatch { kernel, .. } => Some(*kernel),
        Command::Copy { .. } => None,
    });
    if kernels.into_iter().any(|kernel| kernel.contains("_matrices")) {
        all.push(by_matrices);
    }
    Ok(all)
}

/// A case as commands, with what stands in which buffer.
struct Lowered<'a> {
    graph: &'a Graph,
    plan: Plan,
    commands: Vec<Command>,
    /// Buffers by their address: the number of a region.
    regions: HashMap<usize, usize>,
    contents: Vec<(What, u64)>,
    source: MadeUp,
    /// Relative to the greatest of the result; none where not all elements of it are meant.
    tolerance: Option<f32>,
}

#[derive(Clone, Debug, PartialEq)]
enum What {
    Arena(usize),
    Input(Tensor),
    Weight { name: String, shape: Shape, layout: wgpu::Layout, held: Held },
}

/// How a made-up weight is held: its name says so.
fn held_of(name: &str) -> Held {
    match quant_of(name) {
        Some(quant) => Held::Blocks(quant),
        None if name.starts_with("half") => Held::F16,
        None => Held::F32,
    }
}

fn floor() -> Result<Arc<Gpu>> {
    static GPU: Mutex<Option<Arc<Gpu>>> = Mutex::new(None);
    let mut gpu = GPU.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(gpu) = &*gpu {
        return Ok(gpu.clone());
    }
    let selection = Selection::Noop(Box::default());
    let options = wgpu::Options { selection, floor: true, ..wgpu::Options::default() };
    let opened = Gpu::open(&options)?;
    *gpu = Some(opened.clone());
    Ok(opened)
}

impl<'a> Lowered<'a> {
    fn new(case: &'a Case, traits: Traits, tolerance: Option<f32>) -> Result<Lowered<'a>> {
        let gpu = floor()?;
        let graph = &case.graph;
        let plan = Plan::new(graph, &case.outputs, &traits);
        let known: Mutex<Vec<(What, Slice)>> = Mutex::default();
        let stand_in = |what: What, bytes: u64| -> crate::backend::Result<Slice> {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, slice)) = known.iter().find(|(other, _)| *other == what) {
                return Ok(slice.clone());
            }
            let buffer = gpu.buffer("stand-in", 16)?;
            let slice = Slice { buffer, offset: 0, size: bytes };
            known.push((what, slice.clone()));
            Ok(slice)
        };
        let storage = |storage: Storage<'_>| {
            let view = |slice, scalar, held| Ok(BufferView { slice, scalar, held });
            match storage {
                Storage::Arena(arena) => {
                    let slice = stand_in(What::Arena(arena), plan.arenas[arena])?;
                    view(slice, Scalar::F32, Held::F32)
                }
                Storage::Input(tensor) => {
                    let ids = graph.node(tensor).element == crate::graph::Element::U32;
                    let bytes = plan.bytes(graph, tensor).next_multiple_of(16);
                    let slice = stand_in(What::Input(tensor), bytes)?;
                    view(slice, if ids { Scalar::U32 } else { Scalar::F32 }, Held::F32)
                }
                Storage::Weight { name, shape, layout } => {
                    let held = held_of(name).suited(layout, shape);
                    let bytes = wgpu::weight_bytes(shape, layout, held);
                    let (name, shape) = (name.to_string(), shape.clone());
                    let slice = stand_in(What::Weight { name, shape, layout, held }, bytes)?;
                    view(slice, held.scalar(), held)
                }
            }
        };
        let mut commands = wgpu::preparation(graph, &plan, &traits, &storage)?;
        commands.extend(wgpu::commands(graph, &plan, &traits, &storage)?);
        let known = known.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (mut regions, mut contents) = (HashMap::new(), Vec::new());
        for (what, slice) in known {
            regions.insert(Arc::as_ptr(&slice.buffer) as usize, contents.len());
            contents.push((what, slice.size));
        }
        let source = MadeUp::of(graph);
        Ok(Lowered { graph, plan, commands, regions, contents, source, tolerance })
    }

    fn uses(&self, kernel: &str) -> bool {
        self.commands
            .iter()
            .any(|command| matches!(command, Command::Dispatch { kernel: k, .. } if *k == kernel))
    }

    /// The memory as it is before the first command.
    fn memory(&self, inputs: &HashMap<String, Array>) -> Result<Vec<Region>> {
        use crate::graph::ParameterSource;
        let mut all = Vec::new();
        for (what, size) in &self.contents {
            let mut given = true;
            let mut bytes = match what {
                What::Arena(_) => {
                    given = false;
                    vec![0xff; *size as usize]
                }
                What::Input(tensor) => match &self.graph.node(*tensor).origin {
                    Origin::Input { name } => {
                        inputs.get(name).map_or_else(Vec::new, |array| match array.ids() {
                            [] => bytemuck::cast_slice(array.values()).to_vec(),
                            ids => bytemuck::cast_slice(ids).to_vec(),
                        })
                    }
                    _ => Vec::new(),
                },
                What::Weight { name, shape, layout, held } => {
                    let mut values = vec![0.0; shape.elements()];
                    let read = self.source.read(name, 0..values.len(), &mut values);
                    read.map_err(crate::graph::Error::from)?;
                    if let Held::Blocks(quant) = held {
                        let mut rows = vec![0; quant.bytes(values.len())];
                        quant.make(&values, &mut rows);
                        let bytes = packed_blocks(*quant, shape[1], &rows);
                        all.push(Region::new(bytes, false, given));
                        continue;
                    }
                    let values: Vec<f64> =
                        packed(shape, *layout, &values).into_iter().map(f64::from).collect();
                    use super::interface::Stored;
                    let stored = if *held == Held::F16 { Stored::F16 } else { Stored::F32 };
                    encoded(&values, stored, Element::Float)
                }
            };
            bytes.resize(*size as usize, 0);
            all.push(Region::new(bytes, false, given));
        }
        Ok(all)
    }

    /// Executes all commands and compares what comes out.
    fn run(
        &self,
        case: &Case,
        only: Option<&Source>,
        reports: &mut BTreeMap<String, CheckReport>,
        faults: &mut BTreeMap<(String, FaultKind, Option<usize>), Fault>,
    ) -> Result<()> {
        let inputs = case.inputs();
        let mut memory = self.memory(&inputs)?;
        let (mut next, mut last) = (1, String::new());
        let mut touched: Vec<String> = Vec::new();
        for command in &self.commands {
            match command {
                Command::Copy { from, to } => self.copy(&mut memory, from, to, next),
                Command::Dispatch { kernel, params, bindings, uniforms, grid, .. } => {
                    let own;
                    let source = match only.filter(|source| kernel_of(source) == *kernel) {
                        Some(source) => source,
                        None => {
                            own = Source::own(kernel)?;
                            &own
                        }
                    };
                    let wgsl = Variant { kernel, params: params.clone() }.wgsl(source)?;
                    let report = reports.entry(kernel.to_string()).or_insert_with(|| {
                        CheckReport::empty(&source.name, "the operations that dispatch it")
                    });
                    let done = self.dispatch(&wgsl, &mut memory, bindings, uniforms, *grid, next);
                    let done = match done {
                        Ok(Executed { end: End::TooLong, .. }) => {
                            Err(Refusal("it takes too many statements".into()))
                        }
                        other => other,
                    };
                    let sightings = match done {
                        Ok(executed) => {
                            next = executed.next;
                            executed.sightings
                        }
                        // What stands for a kernel of this program must be able to.
                        Err(Refusal(why)) if only.is_some_and(|own| own.name == source.name) => {
                            return Err(source.failed(format!(
                                "it is called as this program's kernel {kernel}, and cannot be \
                                 executed in its place ({why}, at {}); one of your own says in \
                                 its header what it computes and how many workgroups it takes: \
                                 `//% kind KIND`, `//% dispatch [..]`",
                                case.name
                            )));
                        }
                        Err(Refusal(why)) => {
                            report.notes.push(format!("not interpreted: {why} ({})", case.name));
                            return Ok(());
                        }
                    };
                    for sighting in sightings {
                        let place = sighting.line.map(|line| wgsl.origin(line));
                        let what = wgsl.with_places(&sighting.what);
                        let line = place.as_ref().map(|(_, line)| *line);
                        let key = (kernel.to_string(), sighting.kind, line);
                        let fault = faults
                            .entry(key)
                            .or_insert_with(|| Fault::new(sighting.kind, place, what, &case.name));
                        fault.count(&case.name, sighting.times);
                    }
                    last = kernel.to_string();
                    touched.push(last.clone());
                }
            }
        }
        self.compare(case, &inputs, &memory, &last, &touched, reports, faults)
    }

    fn copy(&self, memory: &mut [Region], from: &Slice, to: &Slice, group: u32) {
        let find = |slice: &Slice| self.regions.get(&(Arc::as_ptr(&slice.buffer) as usize));
        if let (Some(&from_region), Some(&to_region)) = (find(from), find(to)) {
            let (start, size) = (from.offset as usize, from.size as usize);
            let bytes = memory[from_region].bytes[start..start + size].to_vec();
            memory[to_region].put(to.offset as usize, &bytes, group);
        }
    }

    fn dispatch(
        &self,
        wgsl: &Wgsl,
        memory: &mut [Region],
        given: &[(String, Slice, Scalar)],
        uniforms: &[(&'static str, Uniform)],
        grid: [u32; 3],
        next: u32,
    ) -> Result<Executed, Refusal> {
        let interpreter = Interpreter::new(&wgsl.text, &HashMap::new())?;
        let interface =
            Interface::of(interpreter.module()).map_err(|problem| Refusal(problem.what))?;
        let mut bindings = Vec::new();
        for (name, slice, _) in given {
            let region = self.regions.get(&(Arc::as_ptr(&slice.buffer) as usize));
            let region = *region.ok_or_else(|| Refusal(format!("`{name}` has no memory")))?;
            bindings.push(Binding {
                name: name.clone(),
                region,
                offset: slice.offset as usize,
                size: slice.size as usize,
                input: false,
            });
        }
        let numbers: Vec<(String, f64)> = uniforms
            .iter()
            .map(|(name, value)| {
                let value = match value {
                    Uniform::U32(value) => f64::from(*value),
                    Uniform::F32(value) => f64::from(*value),
                };
                (name.to_string(), value)
            })
            .collect();
        // Uniforms stand behind everything else, for this dispatch alone.
        let mut all: Vec<Region> = memory.iter_mut().map(std::mem::take).collect();
        for own in &interface.uniforms {
            let bytes = own.packed(&numbers).map_err(Refusal)?;
            let (name, size) = (own.name.clone(), bytes.len());
            bindings.push(Binding { name, region: all.len(), offset: 0, size, input: true });
            all.push(Region::new(bytes, false, true));
        }
        let options =
            Options { subgroup: 32, overflow: true, most: MOST, rounds: ROUNDS, corners: false };
        let done = interpreter.run(&mut all, &bindings, grid, options, next);
        for (own, back) in memory.iter_mut().zip(all) {
            *own = back;
        }
        done
    }

    #[allow(clippy::too_many_arguments, reason = "what is compared, and where it is noted")]
    fn compare(
        &self,
        case: &Case,
        inputs: &HashMap<String, Array>,
        memory: &[Region],
        last: &str,
        touched: &[String],
        reports: &mut BTreeMap<String, CheckReport>,
        faults: &mut BTreeMap<(String, FaultKind, Option<usize>), Fault>,
    ) -> Result<()> {
        let expected = self.graph.evaluate(&case.outputs, inputs, &self.source)?;
        let of_scale = f64::from(self.tolerance.unwrap_or(f32::INFINITY));
        let tolerance = Tolerance { of_scale, of_value: 0.0, least: 1e-37 };
        for (&tensor, expected) in case.outputs.iter().zip(&expected) {
            let Some((bytes, written)) = self.output(tensor, memory) else { continue };
            use super::interface::Stored;
            let count = expected.values().len();
            let values = decoded(&bytes, Stored::F32, Element::Float, count);
            let finite = expected.values().iter().filter(|v| v.is_finite());
            let greatest = finite.fold(1e-6f32, |most, v| most.max(v.abs()));
            let width = expected.shape.channels().max(1);
            let one =
                |&value: &f32| Expected { value: f64::from(value), scale: f64::from(greatest) };
            let rows: Vec<Vec<Expected>> =
                expected.values().chunks(width).map(|row| row.iter().map(one).collect()).collect();
            let numbers: Vec<usize> = (0..rows.len()).collect();
            let found = Found {
                name: "the result",
                extents: &expected.shape,
                rows: &numbers,
                expected: &rows,
                values: &values,
                written: self.tolerance.is_some().then_some(&written[..]),
                in_part: false,
            };
            let verdict = found.verdict(tolerance);
            let meant = verdict.faults.iter().filter(|_| self.tolerance.is_some());
            for (kind, what) in meant.cloned() {
                let key = (last.to_string(), kind, None);
                let fault =
                    faults.entry(key).or_insert_with(|| Fault::new(kind, None, what, &case.name));
                fault.count(&case.name, 1);
            }
            for kernel in touched {
                let Some(report) = reports.get_mut(kernel) else { continue };
                if report.shapes.last().is_some_and(|shape| shape.label == case.name) {
                    continue;
                }
                report.shapes.push(Checked {
                    label: case.name.clone(),
                    sizes: String::new(),
                    interpreted: true,
                    on_device: false,
                    error: self
                        .tolerance
                        .and_then(|_| verdict.worst.as_ref().map(|worst| worst.error)),
                    allowed: tolerance.of_scale,
                    at: None,
                    faults: Vec::new(),
                });
            }
        }
        Ok(())
    }

    /// The bytes of an output, and which of its elements were written.
    fn output(&self, tensor: Tensor, memory: &[Region]) -> Option<(Vec<u8>, Vec<bool>)> {
        let size = self.plan.bytes(self.graph, tensor) as usize;
        let root = self.plan.root(tensor);
        let (what, offset) = match (&self.graph.node(root).origin, self.plan.place(tensor)?) {
            (Origin::Input { .. }, _) => (What::Input(root), 0),
            (_, Place::InPlace(input)) => (What::Input(input), 0),
            (_, Place::Arena { arena, offset }) => (What::Arena(arena), offset as usize),
            _ => return None,
        };
        let region = self.contents.iter().position(|(known, _)| *known == what)?;
        let region = &memory[region];
        let written = (0..size / 4).map(|i| region.is_written(offset + 4 * i, 1)).collect();
        Some((region.bytes[offset..offset + size].to_vec(), written))
    }
}
