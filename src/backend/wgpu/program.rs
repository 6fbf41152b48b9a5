//! A plan on a graphics device: kernels chosen, commands recorded; run any number of times.

use std::collections::HashMap;
use std::sync::Arc;

use super::buffer::{Buffer, Slice};
use super::device::Gpu;
use super::kernel::{Checks, Scalar};
use super::layout::Layout;
use super::lower::{BufferView, Storage, assignments, commands_of_steps, locate, preparation};
use super::record::{Recording, dispatched};
use super::staging::Staging;
use super::weights::Weights;
use crate::backend::{Cost, Executable, Look, Result, Timed, View};
use crate::graph::{Element, Error, Graph, Origin, Plan, Tensor};

/// A plan ready to run.
pub(super) struct Program {
    gpu: Arc<Gpu>,
    recording: Recording,
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
                inputs.insert(tensor, BufferView { slice, scalar, half: false });
            }
        }
        let staging = Staging::new(weights);
        let storage = |storage: Storage<'_>| match storage {
            Storage::Arena(arena) => Ok(BufferView {
                slice: Slice::whole(&arenas[arena]),
                scalar: Scalar::F32,
                half: false,
            }),
            Storage::Input(tensor) => {
                inputs.get(&tensor).cloned().ok_or_else(|| Error::unplaced(graph, tensor).into())
            }
            Storage::Weight { name, shape, layout } => staging.locate(name, shape, layout),
        };
        let traits = *gpu.traits();
        let preparation = preparation(graph, plan, &traits, &storage)?;
        let steps = plan.once..plan.steps.len();
        let (mut commands, ends) = commands_of_steps(graph, plan, &traits, &storage, steps)?;
        commands.extend(assignments(graph, plan, &storage)?);
        let mut traces = Vec::with_capacity(ends.len());
        for (step, end) in plan.steps[plan.once..].iter().zip(ends) {
            let output = locate(graph, plan, step.output, Layout::Plain, &storage)?;
            traces.push(Trace {
                operation: step.operation.name(),
                layer: step.layer.clone(),
                end,
                output,
            });
        }
        let output = |&t: &Tensor| Ok(locate(graph, plan, t, Layout::Plain, &storage)?.slice);
        let outputs = plan.outputs.iter().map(output).collect::<Result<_>>()?;
        staging.finish(|| {
            let kernels = dispatched(&preparation).chain(dispatched(&commands));
            Ok(gpu.compile_all(kernels, Checks::AsOpened)?)
        })?;
        if !preparation.is_empty() {
            // SAFETY: as below.
            unsafe { Recording::trusted(&gpu, &preparation) }?.play();
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
        Ok(Program { gpu, recording, inputs, outputs, traces })
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
        self.recording.play();
    }

    fn wait(&self) -> Result<()> {
        Ok(self.gpu.wait()?)
    }

    fn trace(&self, look: Look<'_>) -> Result<()> {
        let mut start = 0;
        for trace in &self.traces {
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
        Ok(self.recording.profile(clock)?)
    }

    fn timeline(&self, clock: &dyn Fn() -> f64) -> Result<Vec<Timed>> {
        let mut timed = Vec::new();
        for (command, (what, cost)) in self.recording.timeline(clock)?.into_iter().enumerate() {
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
