//! What an operation sees of a step while it turns into kernel dispatches.

use std::collections::BTreeMap;

use super::buffer::Slice;
use super::halved::HALVES;
use super::kernel::Scalar;
use super::layout::{Held, Layout, vector_width};
use super::record::{Command, Uniform};
use super::template::{Params, Value};
use super::traits::Traits;
use crate::graph::ops::Broadcast;
use crate::graph::{Epilogue, Fold, Graph, MOST_FACTORS, PlannedStep, Shape, Tensor};

/// How an operation runs on a graphics device.
pub(crate) trait Lower {
    /// Adds the kernel dispatches that compute the step, or says that there are none
    /// ([`Lowering::no_kernel`]).
    fn lower(&self, lowering: &mut Lowering<'_>);

    /// How the kernels want input `index` where it is a weight.
    fn layout(&self, _index: usize) -> Layout {
        Layout::Plain
    }

    /// What followers this operation's kernels can do in the same go.
    fn folds(&self) -> Fold {
        Fold::Nothing
    }

    /// See [`Target::totals`](crate::graph::Target::totals).
    fn totals(&self, _inputs: &[&Shape], _output: &Shape, _traits: &Traits) -> Option<usize> {
        None
    }

    /// f32 elements of scratch that the kernels need.
    fn scratch(&self, _inputs: &[&Shape], _output: &Shape, _traits: &Traits) -> Option<usize> {
        None
    }
}

/// A tensor on the device.
#[derive(Clone, Debug)]
pub struct BufferView {
    /// The bytes.
    pub slice: Slice,
    /// As seen by a kernel; packed halves and blocks are U32.
    pub scalar: Scalar,
    /// In which numbers, of a weight: two f16 in every u32, but for kernels that read them one by
    /// one.
    pub held: Held,
}

/// One step being lowered: its tensors, located, and the commands made so far.
pub struct Lowering<'a> {
    pub graph: &'a Graph,
    pub step: &'a PlannedStep,
    pub traits: Traits,
    pub(super) locate: &'a dyn Fn(Tensor) -> BufferView,
    pub(super) scratch: Option<Slice>,
    /// What the step sums up of each channel while it stores, or reads in place of its input, and in
    /// how many chunks of a batch entry.
    pub(super) totals: Option<(Slice, usize)>,
    pub(super) in_place: bool,
    /// Whether kernels may round the activations that they read to f16 where that makes them
    /// faster: where weights are held so, and neither gradients nor sums of activations are taken.
    /// A graph without weights has none that ask for more.
    pub rounds: bool,
    pub(super) commands: &'a mut Vec<Command>,
    pub(super) lacks_kernel: bool,
}

/// Everything about a dispatch but its buffers.
pub struct Work<'a> {
    pub kernel: &'static str,
    pub params: Params,
    pub uniforms: Vec<(&'static str, Uniform)>,
    /// Invocations or workgroups, as the operation counted them: workgroups.
    pub grid: [usize; 3],
    pub bindings: Vec<(&'a str, BufferView)>,
    pub flops: u64,
}

const FACTORS: [&str; MOST_FACTORS] = ["factor0", "factor1", "factor2", "factor3"];

/// Workgroups in one dimension before the second takes over; below WebGPU's 65535 and a convenient
/// power of two.
pub const ROW_OF_WORKGROUPS: usize = 32768;

/// A one-dimensional number of workgroups as x and y; kernels rebuild it from both and
/// `ROW_OF_WORKGROUPS`.
pub fn spread(workgroups: usize) -> [usize; 3] {
    [workgroups.min(ROW_OF_WORKGROUPS), workgroups.div_ceil(ROW_OF_WORKGROUPS), 1]
}

impl Lowering<'_> {
    pub fn input(&self, index: usize) -> BufferView {
        (self.locate)(self.step.inputs[index])
    }

    pub fn input_shape(&self, index: usize) -> &Shape {
        self.graph.shape(self.step.inputs[index])
    }

    /// Shape of the operation's own result (what is folded in keeps its rows and channels).
    pub fn shape(&self) -> &Shape {
        self.graph.shape(self.step.result)
    }

    pub fn output(&self) -> BufferView {
        (self.locate)(self.step.output)
    }

    /// The scratch that [`Target::scratch`](crate::graph::Target::scratch) asked for.
    pub fn scratch(&self) -> BufferView {
        let slice = self.scratch.clone().unwrap_or_else(|| self.output().slice);
        BufferView { slice, scalar: Scalar::F32, held: Held::F32 }
    }

    /// The sums of channels that the step makes beside its output, or reads in place of its input
    /// ([`PlannedStep::totals_of`]), and how many chunks a batch entry has.
    pub fn totals(&self) -> Option<(BufferView, usize)> {
        let (slice, chunks) = self.totals.clone()?;
        Some((BufferView { slice, scalar: Scalar::F32, held: Held::F32 }, chunks))
    }

    /// Whether the output stands where the input of [`Operation::in_place`](crate::graph::Operation::in_place) stood, which it
    /// replaces.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Adds a copy of as many bytes as `from` has.
    pub fn copy(&mut self, from: Slice, to: Slice) {
        let to = Slice { size: from.size, ..to };
        self.commands.push(Command::Copy { from, to });
    }

    /// Says that no kernel computes the step: lowering the plan ends in
    /// [`backend::Error::NotImplemented`](crate::backend::Error::NotImplemented).
    pub fn no_kernel(&mut self) {
        self.lacks_kernel = true;
    }

    /// Adds a dispatch. `epilogue` says that this kernel stores the step's output, so that it does
    /// what was folded in.
    pub fn dispatch(&mut self, mut work: Work<'_>, epilogue: bool) {
        if epilogue {
            self.add_update(&mut work);
        }
        self.push(work, epilogue);
    }

    fn push(&mut self, mut work: Work<'_>, epilogue: bool) {
        // Weights in f16 are what a kernel was asked for; its activations are written as f32.
        let of_weights: Vec<&str> = work
            .bindings
            .iter()
            .filter(|(_, at)| at.held == Held::F16)
            .map(|(name, _)| *name)
            .collect();
        let mut bindings: Vec<(String, Slice, Scalar)> = work
            .bindings
            .iter()
            .map(|(name, at)| (name.to_string(), at.slice.clone(), at.scalar))
            .collect();
        if epilogue {
            self.add_epilogue(&mut work.params, &mut work.uniforms, &mut bindings);
        }
        let is_half = |(name, _, scalar): &&(String, Slice, Scalar)| {
            *scalar == Scalar::F16 && !of_weights.contains(&name.as_str())
        };
        let name = |(name, ..): &(String, Slice, Scalar)| Value::from(name.as_str());
        let halves: Vec<Value> = bindings.iter().filter(is_half).map(name).collect();
        if !halves.is_empty() {
            work.params.insert(HALVES, Value::from(halves));
        }
        let bytes = bindings.iter().map(|(_, slice, _)| slice.size).sum();
        self.commands.push(Command::Dispatch {
            kernel: work.kernel,
            params: work.params,
            bindings,
            uniforms: work.uniforms,
            grid: work.grid.map(|n| n as u32),
            label: label(self.step.operation.name(), work.kernel),
            flops: work.flops,
            bytes,
        });
    }

    /// Lets a kernel that imports `shared/lora` add the low-rank update among the epilogue.
    fn add_update(&self, work: &mut Work<'_>) {
        for entry in &self.step.epilogue {
            if let &Epilogue::Lora { hidden, up, transposed } = entry {
                let (rank, channels) =
                    (self.graph.shape(hidden).channels(), self.shape().channels());
                work.flops += 2 * (self.shape().elements() * rank) as u64;
                add_lora(
                    work,
                    (self.locate)(hidden),
                    (self.locate)(up),
                    transposed,
                    [rank, channels],
                );
            }
        }
        work.params.entry("lora").or_insert(Value::from(false));
    }

    fn add_epilogue(
        &self,
        params: &mut Params,
        uniforms: &mut Vec<(&'static str, Uniform)>,
        bindings: &mut Vec<(String, Slice, Scalar)>,
    ) {
        let mut listed: Vec<Value> = Vec::new();
        let mut operands = 0;
        let mut rows_per_batch = None;
        let mut operand_rows = None;
        let mut factors: usize = 0;
        for entry in &self.step.epilogue {
            let entry = match entry {
                Epilogue::Lora { .. } | Epilogue::Geglu => continue,
                Epilogue::Function(function) => vec![("kind", function.name().to_string())],
                Epilogue::Scale(factor) => {
                    let name = FACTORS[factors % MOST_FACTORS];
                    uniforms.push((name, (*factor).into()));
                    factors += 1;
                    vec![("kind", "scale".into()), ("name", name.into())]
                }
                Epilogue::Derivative(function, tensor) => {
                    let name = format!("operand{operands}");
                    operands += 1;
                    let at = (self.locate)(*tensor);
                    bindings.push((name.clone(), at.slice, at.scalar));
                    vec![
                        ("kind", "derivative".into()),
                        ("function", function.name().into()),
                        ("name", name),
                    ]
                }
                Epilogue::Add(tensor, broadcast) | Epilogue::Multiply(tensor, broadcast) => {
                    let name = format!("operand{operands}");
                    operands += 1;
                    let how = match broadcast {
                        Broadcast::Same => "same",
                        Broadcast::Scalar => "scalar",
                        Broadcast::Trailing { rows: 1, .. } => "channels",
                        Broadcast::Trailing { .. } => "rows",
                        Broadcast::Batch { .. } => "batch",
                    };
                    rows_per_batch = rows_per_batch.or(broadcast.rows_per_batch());
                    operand_rows = operand_rows.or(broadcast.operand_rows());
                    let at = (self.locate)(*tensor);
                    bindings.push((name.clone(), at.slice, at.scalar));
                    let kind = if matches!(entry, Epilogue::Add(..)) { "add" } else { "multiply" };
                    vec![("kind", kind.into()), ("how", how.into()), ("name", name)]
                }
            };
            listed.push(Value::from(entry.into_iter().collect::<BTreeMap<_, _>>()));
        }
        if let Some(rows) = rows_per_batch {
            uniforms.push(("rows_per_batch", rows.into()));
        }
        if let Some(rows) = operand_rows {
            uniforms.push(("operand_rows", rows.into()));
        }
        params.insert("operand_rows", Value::from(operand_rows.is_some()));
        params.insert("rows_per_batch", Value::from(rows_per_batch.is_some()));
        params.insert("factors", Value::from(factors));
        params.insert("epilogue", Value::from(listed));
    }
}

/// Lets a kernel that imports `shared/lora` add `hidden` times `up` to its sums; their extents are
/// rank and channels.
pub(crate) fn add_lora(
    work: &mut Work<'_>,
    hidden: BufferView,
    up: BufferView,
    transposed: bool,
    [rank, channels]: [usize; 2],
) {
    let vector_rank = vector_width(&[rank]);
    let described = [
        ("transposed", Value::from(transposed)),
        ("vector_rank", Value::from(vector_rank)),
        ("vector_up", Value::from(vector_width(&[if transposed { channels } else { rank }]))),
    ];
    work.params.insert("lora", Value::from(BTreeMap::from(described)));
    work.uniforms.push(("rank", (rank / vector_rank).into()));
    work.bindings.extend([("lora_hidden", hidden), ("lora_up", up)]);
}

/// The operation, and the kernel where it has another name.
fn label(operation: &str, kernel: &str) -> String {
    if operation == kernel { operation.into() } else { format!("{operation} ({kernel})") }
}
