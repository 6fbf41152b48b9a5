//! A plan on a graphics device: kernels chosen, commands recorded; run any number of times.

use std::collections::HashMap;
use std::sync::Arc;

use super::buffer::{Buffer, Slice};
use super::device::Gpu;
use super::kernel::{Checks, Scalar};
use super::layout::{Held, Layout};
use super::lower::{BufferView, Storage, assignments, commands_of_steps, locate};
use super::record::{Recording, dispatched};
use super::staging::Staging;
use super::streamed::{Arrivals, PLACES, Placed, bring_to_host, stream};
use super::uses::Key;
use super::weights::Weights;
use crate::backend::streaming::{Block, Stream};
use crate::backend::{Cost, Executable, Look, Result, Timed, TooLittle, View};
use crate::graph::{Element, Error, Graph, Origin, Plan, Tensor};

/// A plan ready to run.
pub(super) struct Program {
    gpu: Arc<Gpu>,
    recording: Recording,
    /// What comes while it is played.
    arrivals: Option<Arrivals>,
    inputs: HashMap<Tensor, Slice>,
    outputs: Vec<Slice>,
    traces: Vec<Trace>,
}

/// One step of the plan as it was recorded.
struct Trace {
    operation: &'static str,
    layer: Arc<str>,
    /// Commands up to its last.
    end: usize,
    output: BufferView,
}

impl Program {
    /// Uploads what is missing of the weights while kernels are compiled, and records.
    pub fn new(weights: &Weights, graph: &Graph, plan: &Plan) -> Result<Program> {
        Program::of(weights, graph, plan, None)
    }

    /// The same with weights in no more than `within` bytes of the device.
    pub fn within(weights: &Weights, graph: &Graph, plan: &Plan, within: u64) -> Result<Program> {
        let stream = stream(weights, graph, plan, within)?;
        let stream = stream
            .map_err(|TooLittle { least }| crate::backend::Error::TooFewBytes { within, least })?;
        if stream.place == 0 {
            return Program::new(weights, graph, plan);
        }
        bring_to_host(weights, graph, &stream.blocks)?;
        Program::of(weights, graph, plan, Some(&stream))
    }

    fn of(
        weights: &Weights,
        graph: &Graph,
        plan: &Plan,
        stream: Option<&Stream<Key>>,
    ) -> Result<Program> {
        let gpu = weights.gpu.clone();
        let arenas: Vec<Arc<Buffer>> = plan
            .arenas
            .iter()
            .map(|&size| gpu.buffer("activations", size))
            .collect::<Result<_, _>>()?;
        let mut inputs: HashMap<Tensor, BufferView> = HashMap::new();
        for tensor in graph.tensors() {
            let node = graph.node(tensor);
            if let Origin::Input { name } = &node.origin {
                let slice = Slice::whole(&gpu.buffer(name, plan.bytes(graph, tensor))?);
                let scalar = if node.element == Element::F32 { Scalar::F32 } else { Scalar::U32 };
                inputs.insert(tensor, BufferView { slice, scalar, held: Held::F32 });
            }
        }
        let staging = Staging::new(weights);
        // What comes for some steps, besides what stays.
        let storage = |storage: Storage<'_>, placed: Option<&Placed>| match storage {
            Storage::Arena(arena) => Ok(BufferView {
                slice: Slice::whole(&arenas[arena]),
                scalar: Scalar::F32,
                held: Held::F32,
            }),
            Storage::Input(tensor) => {
                inputs.get(&tensor).cloned().ok_or_else(|| Error::unplaced(graph, tensor).into())
            }
            Storage::Weight { name, shape, layout } => {
                let Some(placed) = placed else { return staging.locate(name, shape, layout) };
                let key = (name.to_string(), layout);
                // Of other blocks' weights only the form is asked for.
                let comes = || stream.is_some_and(|stream| stream.comes(&key));
                let elsewhere = || weights.host.get(&key).filter(|_| comes());
                let found = placed.get(&key).or_else(|| elsewhere().map(|weight| weight.form));
                found.map_or_else(|| staging.locate(name, shape, layout), Ok)
            }
        };
        let at_rest = |wanted: Storage<'_>| storage(wanted, None);
        let traits = *gpu.traits();
        let mut places: Vec<Arc<Buffer>> = Vec::new();
        let whole = [
            Block { steps: 0..plan.once, weights: Vec::new() },
            Block { steps: plan.once..plan.steps.len(), weights: Vec::new() },
        ];
        let blocks = stream.map_or(&whole[..], |stream| &stream.blocks);
        if let Some(stream) = stream {
            for _ in 0..PLACES {
                places.push(gpu.buffer("weights that come and go", stream.place)?);
            }
        }
        let (mut preparation, mut commands, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let (mut first, mut each_run) = (Arrivals::default(), Arrivals::default());
        for (number, block) in blocks.iter().enumerate() {
            let place = places.get(number % PLACES);
            let placed = place.map(|place| Placed::new(weights, block, place));
            let storage = |wanted: Storage<'_>| storage(wanted, placed.as_ref());
            let steps = block.steps.clone();
            let (new, new_ends) = commands_of_steps(graph, plan, &traits, &storage, steps)?;
            let once = block.steps.end <= plan.once;
            let (into, arrivals) = match once {
                true => (&mut preparation, &mut first),
                false => (&mut commands, &mut each_run),
            };
            if !once {
                ends.extend(new_ends.into_iter().map(|end| end + into.len()));
            }
            into.extend(new);
            let end = into.len();
            placed.into_iter().for_each(|placed| arrivals.add(placed, end));
        }
        commands.extend(assignments(graph, plan, &at_rest)?);
        each_run.end_at(commands.len());
        let mut traces = Vec::with_capacity(ends.len());
        for (step, end) in plan.steps[plan.once..].iter().zip(ends) {
            let output = locate(graph, plan, step.output, Layout::Plain, &at_rest)?;
            traces.push(Trace {
                operation: step.operation.name(),
                layer: step.layer.clone(),
                end,
                output,
            });
        }
        let output = |&t: &Tensor| Ok(locate(graph, plan, t, Layout::Plain, &at_rest)?.slice);
        let outputs = plan.outputs.iter().map(output).collect::<Result<_>>()?;
        staging.finish(|| {
            let kernels = dispatched(&preparation).chain(dispatched(&commands));
            Ok(gpu.compile_all(kernels, Checks::AsOpened)?)
        })?;
        let arrivals = stream.map(|_| each_run);
        if !preparation.is_empty() {
            // SAFETY: as below.
            let recording = unsafe { Recording::trusted(&gpu, &preparation) }?;
            match stream {
                None => recording.play(),
                Some(_) => first.play(&gpu, &recording),
            }
        }
        // SAFETY: lowering takes uniforms, grids and bindings from the shapes of the step's tensors
        // as the kernels' contracts say (the tests run it on all operations and models with checks
        // on). `commands_of_steps` has refused steps whose shapes, epilogue, padding or scratch the
        // operation does not take, and tensors whose storage is of another size.
        let recording = unsafe { Recording::trusted(&gpu, &commands) }?;
        let slice = |(&tensor, view): (&Tensor, &BufferView)| {
            let size = plan.bytes(graph, tensor);
            (tensor, Slice { size, ..view.slice.clone() })
        };
        let inputs = inputs.iter().map(slice).collect();
        Ok(Program { gpu, recording, arrivals, inputs, outputs, traces })
    }
}

impl Executable for Program {
    fn input(&self, tensor: Tensor) -> Option<View> {
        self.inputs.get(&tensor).cloned().map(View::new)
    }

    fn output(&self, index: usize) -> View {
        View::new(self.outputs[index].clone())
    }

    fn write(&self, view: &View, bytes: &[u8]) {
        if let Some(slice) = view.get::<Slice>() {
            self.gpu.write(&slice.buffer, slice.offset, bytes);
        }
    }

    fn read(&self, view: &View) -> Result<Vec<u8>> {
        match view.get::<Slice>() {
            Some(slice) => Ok(self.gpu.read(&slice.buffer, slice.offset, slice.size)?),
            None => Err(crate::backend::Error::OtherDevice),
        }
    }

    fn run(&self) {
        match &self.arrivals {
            None => self.recording.play(),
            Some(arrivals) => arrivals.play(&self.gpu, &self.recording),
        }
    }

    fn wait(&self) -> Result<()> {
        Ok(self.gpu.wait()?)
    }

    fn trace(&self, look: Look<'_>) -> Result<()> {
        let (mut start, mut arrived) = (0, 0);
        for trace in &self.traces {
            if let Some(arrivals) = &self.arrivals {
                arrivals.write_before(&self.gpu, start, &mut arrived);
            }
            self.recording.play_range(start..trace.end)?;
            start = trace.end;
            let Slice { buffer, offset, size } = &trace.output.slice;
            let bytes = self.gpu.read(buffer, *offset, *size)?;
            let values: Vec<f32> = match trace.output.scalar {
                Scalar::F16 => bytemuck::pod_collect_to_vec::<u8, half::f16>(&bytes)
                    .into_iter()
                    .map(half::f16::to_f32)
                    .collect(),
                _ => bytemuck::pod_collect_to_vec(&bytes),
            };
            if !look(trace.operation, &trace.layer, &values) {
                return Ok(());
            }
        }
        Ok(self.recording.play_range(start..self.recording.len())?)
    }

    fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        let Some(arrivals) = &self.arrivals else { return Ok(self.recording.profile(clock)?) };
        let timed = arrivals.timeline(&self.gpu, &self.recording, clock)?;
        Ok(super::record::summed(timed))
    }

    fn timeline(&self, clock: &dyn Fn() -> f64) -> Result<Vec<Timed>> {
        let mut timed = Vec::new();
        let costs = match &self.arrivals {
            None => self.recording.timeline(clock)?,
            Some(arrivals) => arrivals.timeline(&self.gpu, &self.recording, clock)?,
        };
        for (command, (what, cost)) in costs.into_iter().enumerate() {
            // What stands behind the last step gives inputs their new values.
            let of = self.traces.partition_point(|trace| trace.end <= command);
            let layer = self.traces.get(of).map_or(String::new(), |trace| trace.layer.to_string());
            timed.push(Timed { what, layer, cost });
        }
        Ok(timed)
    }

    fn flops(&self) -> u64 {
        self.recording.flops()
    }

    fn bytes(&self) -> u64 {
        self.recording.bytes()
    }

    fn commands(&self) -> usize {
        self.recording.len()
    }
}
