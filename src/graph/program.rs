//! A plan on a device: weights uploaded, kernels chosen, commands recorded; run any number of times.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::gpu::{Buffer, Command, Cost, Gpu, Recording, Scalar, Schedule, Slice};

use super::lower::{Located, Storage, assignments, commands_of_steps, locate, preparation, unplaced};
use super::ops::{Layout, PANEL, Stage};
use super::parameter::{self, ParameterSource, StoredAs};
use super::plan::{Plan, Traits};
use super::transposed::Transposed;
use super::{Array, Data, Element, Error, Graph, Origin, Result, Shape, Tensor};

/// How weights are held on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// f16 where the file has 16 bits, f32 where it has 32.
    #[default]
    AsStored,
    F16,
    F32,
}

impl Precision {
    pub const ALL: [Self; 3] = [Self::AsStored, Self::F16, Self::F32];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AsStored => "as-stored",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no precision's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown precision `{0}`: expected as-stored, f16 or f32")]
pub struct UnknownPrecision(pub String);

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(name: &str) -> std::result::Result<Self, UnknownPrecision> {
        let found = Self::ALL.into_iter().find(|precision| precision.name() == name);
        found.ok_or_else(|| UnknownPrecision(name.to_string()))
    }
}

/// Weights on a device, in their kernels' layouts, shared by all programs that use them.
pub struct Weights {
    gpu: Arc<Gpu>,
    source: Arc<dyn ParameterSource + Send>,
    precision: Precision,
    uploaded: Mutex<HashMap<(String, Layout), Located>>,
}

/// Numbers that a core rounds to f16 at a time.
const HALVES: usize = 1 << 16;

/// Bytes converted and queued before the device is waited for, so that staging memory stays small.
const PIECE: usize = 8 << 20;

impl Weights {
    pub fn new(gpu: &Arc<Gpu>, source: Arc<dyn ParameterSource + Send>, precision: Precision) -> Weights {
        Weights { gpu: gpu.clone(), source, precision, uploaded: Mutex::default() }
    }

    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn source(&self) -> &dyn ParameterSource {
        &*self.source
    }

    fn is_half(&self, stored: StoredAs, layout: Layout) -> bool {
        let wanted = match self.precision {
            Precision::AsStored => stored != StoredAs::F32,
            Precision::F16 => true,
            Precision::F32 => false,
        };
        wanted && layout != Layout::Plain
    }

    /// Device bytes of the weights that `graph` uses, uploaded or not.
    pub fn planned_bytes(&self, graph: &Graph, plan: &Plan) -> Result<u64> {
        let mut bytes = 0;
        let mut seen = HashMap::new();
        for (name, layout, shape) in used(graph, plan, self.gpu.schedule()) {
            if seen.insert((name, layout), ()).is_none() {
                let info = parameter::expect(&*self.source, name, shape)?;
                bytes += weight_bytes(shape, layout, self.is_half(info.stored, layout));
            }
        }
        Ok(bytes)
    }

    /// Gives up the device's copy of every weight whose name is not `wanted`; programs that use it keep theirs.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner).retain(|(name, _), _| wanted(name));
    }

    /// The weight `name` of logical `shape` on the device; uploaded on first use.
    fn locate(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Located> {
        let key = (name.to_string(), layout);
        if let Some(located) = self.uploaded.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(located.clone());
        }
        let info = parameter::expect(&*self.source, name, shape)?;
        let half = self.is_half(info.stored, layout);
        let buffer = self.gpu.buffer(name, weight_bytes(shape, layout, half))?;
        match layout {
            Layout::Plain | Layout::Rows => self.upload_plain(name, shape.elements(), half, &buffer)?,
            Layout::Panels => self.upload_panels(name, shape, half, &buffer)?,
            Layout::Transposed { stride } => {
                self.upload_transposed(name, Transposed::of(shape, stride), shape[0], half, &buffer)?
            }
        }
        self.source.done_with(name);
        let scalar = if half { Scalar::U32 } else { Scalar::F32 };
        let located = Located { slice: Slice::whole(&buffer), scalar, half };
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner).insert(key, located.clone());
        Ok(located)
    }

    fn upload_plain(&self, name: &str, elements: usize, half: bool, buffer: &Buffer) -> Result<()> {
        let mut values = Vec::new();
        let mut upload = Upload::new(&self.gpu, buffer, name, half);
        for start in (0..elements).step_by(PIECE / 4) {
            values.resize((elements - start).min(PIECE / 4), 0.0);
            self.source.read(name, start..start + values.len(), &mut values)?;
            upload.push(&values)?;
        }
        upload.finish()
    }

    /// `[out, in, taps]` to `[out / 64][taps][in][64]`, as many panels at a time as a piece holds, all cores together.
    fn upload_panels(&self, name: &str, shape: &Shape, half: bool, buffer: &Buffer) -> Result<()> {
        let (out, into) = (shape[0], shape[1]);
        let taps: usize = shape[2..].iter().product();
        let row = into * taps;
        let at_once = (PIECE / 4 / (PANEL * row).max(1)).max(1) * PANEL;
        let (mut rows, mut panels) = (Vec::new(), Vec::new());
        let mut upload = Upload::new(&self.gpu, buffer, name, half);
        for first in (0..out).step_by(at_once) {
            let count = (out - first).min(at_once);
            rows.resize(count * row, 0.0);
            self.source.read(name, first * row..(first + count) * row, &mut rows)?;
            panels.clear();
            panels.resize(count.next_multiple_of(PANEL) * row, 0.0);
            let pairs = panels.par_chunks_mut((PANEL * row).max(1)).zip(rows.par_chunks((PANEL * row).max(1)));
            pairs.for_each(|(panel, rows)| fill_panel(panel, rows, into, taps));
            upload.push(&panels)?;
        }
        upload.finish()
    }

    /// `[out, in, kh, kw]` to the panels of the convolution's gradient, as many outputs at a time as a piece holds.
    fn upload_transposed(&self, name: &str, layout: Transposed, out: usize, half: bool, buffer: &Buffer) -> Result<()> {
        let row = layout.row();
        let count = (PIECE / 4 / row.max(1)).clamp(1, out.max(1));
        let mut values = Vec::new();
        let mut upload = Upload::new(&self.gpu, buffer, name, half);
        for first in (0..out).step_by(count) {
            let rows = first..out.min(first + count);
            values.resize(rows.len() * row, 0.0);
            self.source.read(name, first * row..rows.end * row, &mut values)?;
            layout.rearrange(rows, &values, |at, run| {
                upload.offset = (at * if half { 2 } else { 4 }) as u64;
                upload.push(run)
            })?;
        }
        upload.finish()
    }
}

/// Up to 64 rows `[in, taps]` to a panel `[taps][in][64]`, a few inputs of all rows at a time, so that what is written stays in the cache.
fn fill_panel(panel: &mut [f32], rows: &[f32], into: usize, taps: usize) {
    const INPUTS: usize = 16;
    for first in (0..into).step_by(INPUTS) {
        let last = (first + INPUTS).min(into);
        for (o, row) in rows.chunks_exact((into * taps).max(1)).enumerate() {
            for (i, values) in (first..last).zip(row[first * taps..last * taps].chunks_exact(taps.max(1))) {
                for (tap, &value) in values.iter().enumerate() {
                    panel[(tap * into + i) * PANEL + o] = value;
                }
            }
        }
    }
}

/// Elements on their way into a buffer, converted and waited for in pieces.
struct Upload<'a> {
    gpu: &'a Gpu,
    buffer: &'a Buffer,
    name: &'a str,
    half: bool,
    offset: u64,
    bytes: Vec<u8>,
    queued: usize,
}

impl<'a> Upload<'a> {
    fn new(gpu: &'a Gpu, buffer: &'a Buffer, name: &'a str, half: bool) -> Self {
        Upload { gpu, buffer, name, half, offset: 0, bytes: Vec::new(), queued: 0 }
    }

    fn push(&mut self, values: &[f32]) -> Result<()> {
        for piece in values.chunks(PIECE / 4) {
            self.bytes.clear();
            if self.half {
                self.bytes.resize(piece.len() * 2, 0);
                let halves: &mut [half::f16] = bytemuck::cast_slice_mut(&mut self.bytes);
                let wrong = halves.par_chunks_mut(HALVES).zip(piece.par_chunks(HALVES)).filter_map(|(halves, piece)| {
                    halves.convert_from_f32_slice(piece);
                    halves.iter().zip(piece).find(|(h, v)| !h.is_finite() && v.is_finite()).map(|(_, v)| *v)
                });
                if let Some(value) = wrong.find_first(|_| true) {
                    let message = format!("{value} does not fit f16; use f32 weights");
                    return Err(parameter::ParameterError::Read { name: self.name.into(), message }.into());
                }
            } else {
                self.bytes.extend_from_slice(bytemuck::cast_slice(piece));
            }
            let padded = self.bytes.len().next_multiple_of(4);
            self.bytes.resize(padded, 0);
            self.gpu.write(self.buffer, self.offset, &self.bytes);
            self.offset += self.bytes.len() as u64;
            self.queued += self.bytes.len();
            if self.queued >= PIECE {
                self.gpu.flush()?;
                self.queued = 0;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        Ok(self.gpu.flush()?)
    }
}

/// Device bytes of a weight of `shape`, in f16 if `half`.
pub fn weight_bytes(shape: &Shape, layout: Layout, half: bool) -> u64 {
    let elements = match layout {
        Layout::Plain | Layout::Rows => shape.elements(),
        Layout::Transposed { stride } => Transposed::of(shape, stride).elements(),
        Layout::Panels => shape[0].next_multiple_of(PANEL) * shape[1..].iter().product::<usize>(),
    };
    (elements as u64 * if half { 2 } else { 4 }).next_multiple_of(16)
}

/// The weights that a plan's steps read, with the layout each wants.
fn used<'a>(graph: &'a Graph, plan: &'a Plan, schedule: Schedule) -> impl Iterator<Item = (&'a str, Layout, &'a Shape)> {
    let weight = |t: Tensor, layout: Layout| match &graph.node(plan.root(t)).origin {
        Origin::Parameter { name } => Some((name.as_str(), layout, &graph.node(plan.root(t)).shape)),
        _ => None,
    };
    plan.steps.iter().flat_map(move |step| {
        let inputs = step.inputs.iter().enumerate().map(|(i, &t)| (t, step.operation.layout(i)));
        let operands = step.stages.iter().flat_map(Stage::operands).map(|t| (t, Layout::Plain));
        let suited = move |(t, layout): (Tensor, Layout)| weight(t, layout.suited(schedule, graph.shape(plan.root(t))));
        inputs.chain(operands).filter_map(suited).collect::<Vec<_>>()
    })
}

/// A plan ready to run.
pub struct Program {
    gpu: Arc<Gpu>,
    recording: Recording,
    inputs: HashMap<String, (Located, Shape, Element)>,
    outputs: Vec<(Slice, Shape)>,
    traces: Vec<Trace>,
}

/// One step of the plan as it was recorded.
struct Trace {
    operation: &'static str,
    layer: Arc<str>,
    /// Commands up to its last.
    end: usize,
    output: Slice,
}

impl Program {
    /// What plans for `gpu` follow.
    pub fn traits(gpu: &Gpu) -> Traits {
        Traits {
            max_binding: gpu.max_binding(),
            max_buffer: gpu.limits().max_buffer_size,
            alignment: u64::from(gpu.limits().min_storage_buffer_offset_alignment),
            workgroup_memory: gpu.limits().max_compute_workgroup_storage_size as usize,
            schedule: gpu.schedule(),
        }
    }

    /// Plans, uploads what is missing of the weights, and records.
    pub fn new(weights: &Weights, graph: &Graph, outputs: &[Tensor]) -> Result<Program> {
        let plan = Plan::new(graph, outputs, &Self::traits(&weights.gpu));
        Self::from_plan(weights, graph, &plan)
    }

    pub fn from_plan(weights: &Weights, graph: &Graph, plan: &Plan) -> Result<Program> {
        let gpu = weights.gpu.clone();
        let arenas: Vec<Arc<Buffer>> =
            plan.arenas.iter().map(|&size| gpu.buffer("activations", size)).collect::<Result<_, _>>()?;
        let mut inputs = HashMap::new();
        let mut located: HashMap<Tensor, Located> = HashMap::new();
        for (index, node) in graph.nodes().iter().enumerate() {
            if let Origin::Input { name } = &node.origin {
                let slice = Slice::whole(&gpu.buffer(name, node.shape.elements() as u64 * 4)?);
                let scalar = if node.element == Element::F32 { Scalar::F32 } else { Scalar::U32 };
                let at = Located { slice, scalar, half: false };
                if inputs.insert(name.clone(), (at.clone(), node.shape.clone(), node.element)).is_some() {
                    return Err(Error::DuplicateInput { name: name.clone() });
                }
                located.insert(Tensor(index as u32), at);
            }
        }
        let storage = |storage: Storage<'_>| match storage {
            Storage::Arena(arena) => Ok(Located { slice: Slice::whole(&arenas[arena]), scalar: Scalar::F32, half: false }),
            Storage::Input(tensor) => located.get(&tensor).cloned().ok_or_else(|| unplaced(graph, tensor)),
            Storage::Weight { name, shape, layout } => weights.locate(name, shape, layout),
        };
        let preparation = preparation(graph, plan, &storage)?;
        if !preparation.is_empty() {
            Recording::new(&gpu, &preparation)?.play();
        }
        let steps = plan.once..plan.steps.len();
        let (mut commands, ends) = commands_of_steps(graph, plan, &storage, steps)?;
        commands.extend(assignments(graph, plan, &storage)?);
        let mut traces = Vec::with_capacity(ends.len());
        for (step, end) in plan.steps[plan.once..].iter().zip(ends) {
            let output = locate(graph, plan, step.output, Layout::Plain, &storage)?.slice;
            traces.push(Trace { operation: step.operation.name(), layer: step.layer.clone(), end, output });
        }
        let output = |&t: &Tensor| Ok((locate(graph, plan, t, Layout::Plain, &storage)?.slice, graph.shape(t).clone()));
        let outputs = plan.outputs.iter().map(output).collect::<Result<_>>()?;
        let recording = Recording::new(&gpu, &commands)?;
        Ok(Program { gpu, recording, inputs, outputs, traces })
    }

    /// Writes the input `name`.
    pub fn write(&self, name: &str, array: &Array) -> Result<()> {
        let (at, shape, element) = self.inputs.get(name).ok_or_else(|| Error::MissingInput { name: name.into() })?;
        array.check(name, shape, *element)?;
        let bytes: &[u8] = match &array.data {
            Data::F32(values) => bytemuck::cast_slice(values),
            Data::U32(ids) => bytemuck::cast_slice(ids),
        };
        self.gpu.write(&at.slice.buffer, 0, bytes);
        Ok(())
    }

    /// There is an input of that name.
    pub fn has_input(&self, name: &str) -> bool {
        self.inputs.contains_key(name)
    }

    /// Lets the input `name` of this program be the output `index` of another: copies on the device.
    pub fn take(&self, name: &str, other: &Program, index: usize) -> Result<()> {
        self.transfer(&[self.copy_of_output(name, other, index)?])?.play();
        Ok(())
    }

    /// The copy that lets the input `name` be the output `index` of another program; see [`Program::transfer`].
    pub fn copy_of_output(&self, name: &str, other: &Program, index: usize) -> Result<Command> {
        let (from, found) = &other.outputs[index];
        self.copy(name, from, found.elements(), found)
    }

    /// The copy that lets the input `name` be what the input `from` of another program begins with.
    pub fn copy_of_input(&self, name: &str, other: &Program, from: &str) -> Result<Command> {
        let (at, shape, _) = other.inputs.get(from).ok_or_else(|| Error::MissingInput { name: from.into() })?;
        let (_, wanted, _) = self.inputs.get(name).ok_or_else(|| Error::MissingInput { name: name.into() })?;
        let elements = wanted.elements().min(shape.elements());
        self.copy(name, &Slice { size: elements as u64 * 4, ..at.slice.clone() }, elements, shape)
    }

    fn copy(&self, name: &str, from: &Slice, elements: usize, found: &Shape) -> Result<Command> {
        let (at, shape, _) = self.inputs.get(name).ok_or_else(|| Error::MissingInput { name: name.into() })?;
        if elements != shape.elements() {
            return Err(Error::Input { name: name.into(), expected: shape.to_string(), found: found.to_string() });
        }
        Ok(Command::Copy { from: from.clone(), to: Slice { size: from.size, ..at.slice.clone() } })
    }

    /// Copies between programs of one device, to be played any number of times.
    pub fn transfer(&self, copies: &[Command]) -> Result<Recording> {
        Ok(Recording::new(&self.gpu, copies)?)
    }

    /// Starts a run; does not wait.
    pub fn run(&self) {
        self.recording.play();
    }

    /// Waits for what was started.
    pub fn wait(&self) -> Result<()> {
        Ok(self.gpu.wait()?)
    }

    /// The value of output `index` after the last run.
    pub fn output(&self, index: usize) -> Result<Array> {
        let (slice, shape) = &self.outputs[index];
        let bytes = self.gpu.read(&slice.buffer, slice.offset, shape.elements() as u64 * 4)?;
        Ok(Array::f32(shape.clone(), bytemuck::pod_collect_to_vec(&bytes)))
    }

    /// Runs step by step, and shows the result of each: operation, layer, values (with whatever was folded into it). Ends when
    /// `look` says false; then inputs have not taken their new values.
    pub fn trace(&self, look: &mut dyn FnMut(&str, &str, &[f32]) -> bool) -> Result<()> {
        let mut start = 0;
        for trace in &self.traces {
            self.recording.play_range(start..trace.end)?;
            start = trace.end;
            let bytes = self.gpu.read(&trace.output.buffer, trace.output.offset, trace.output.size)?;
            if !look(trace.operation, &trace.layer, &bytemuck::pod_collect_to_vec::<u8, f32>(&bytes)) {
                return Ok(());
            }
        }
        self.recording.play_range(start..self.recording.len())?;
        Ok(())
    }

    /// The value that the input `name` holds now (a state that runs change).
    pub fn state(&self, name: &str) -> Result<Array> {
        let (at, shape, _) = self.inputs.get(name).ok_or_else(|| Error::MissingInput { name: name.into() })?;
        let bytes = self.gpu.read(&at.slice.buffer, 0, shape.elements() as u64 * 4)?;
        Ok(Array::f32(shape.clone(), bytemuck::pod_collect_to_vec(&bytes)))
    }

    /// Runs command by command and sums costs by operation; see [`Recording::profile`].
    pub fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        Ok(self.recording.profile(clock)?)
    }

    /// Floating-point operations of a run.
    pub fn flops(&self) -> u64 {
        self.recording.flops()
    }

    /// Bytes that a run's kernels read and write, each binding counted once a dispatch.
    pub fn bytes(&self) -> u64 {
        self.recording.bytes()
    }

    /// Number of dispatches and copies in a run.
    pub fn commands(&self) -> usize {
        self.recording.len()
    }
}
