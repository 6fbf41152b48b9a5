//! From the steps of a plan to work on slices: what an operation sees while it turns into a task.

use std::collections::HashMap;
use std::sync::Arc;

use super::Error;
use super::memory::{Span, Turn, disjoint};
use super::ops::computing_of;
use super::weights::{Layout, Packed};
use crate::backend;
use crate::graph::ops::{Broadcast, Function};
use crate::graph::{
    self, Epilogue, Fold, Graph, Limits, Operation, Origin, Place, Plan, PlannedStep, Shape,
    Target, Tensor,
};
use cpu_kernels::activation as functions;
use cpu_kernels::elementwise::Padding;
use cpu_kernels::epilogue::{self as entries, Epilogue as Entry};
use cpu_kernels::simd::Level;

/// How an operation runs on the processor.
pub(crate) trait Compute {
    /// The work of a step.
    fn compile(&self, step: StepBuilder<'_>) -> Task;

    /// How the kernels want input `index` where it is a weight.
    fn layout(&self, _index: usize) -> Layout {
        Layout::Plain
    }

    /// What followers this operation's kernels can do in the same go.
    fn folds(&self) -> Fold {
        Fold::Nothing
    }

    /// Whether the kernels can do the step before in the same go, if that is `before` and reads the
    /// same.
    fn joins(&self, _before: &dyn Operation) -> bool {
        false
    }

    /// f32 elements of scratch that the kernels need.
    fn scratch(&self, _inputs: &[&Shape], _output: &Shape) -> Option<usize> {
        None
    }
}

/// What plans for the processor keep to.
pub(super) struct Traits {
    /// Bytes of memory that the machine has.
    pub memory: u64,
}

impl Target for Traits {
    fn limits(&self) -> Limits {
        Limits {
            max_binding: self.memory,
            max_buffer: u64::MAX,
            alignment: super::memory::ALIGNMENT as u64,
        }
    }

    fn folds(&self, operation: &dyn Operation) -> Fold {
        computing_of(operation).map_or(Fold::Nothing, |compute| compute.folds())
    }

    fn scratch(
        &self,
        operation: &dyn Operation,
        inputs: &[&Shape],
        output: &Shape,
    ) -> Option<usize> {
        computing_of(operation)?.scratch(inputs, output).filter(|elements| *elements > 0)
    }
}

/// How `operation` wants input `index` where it is a weight.
pub(super) fn layout_of(operation: &dyn Operation, index: usize) -> Layout {
    computing_of(operation).map_or(Layout::Plain, |compute| compute.layout(index))
}

/// Where the tensors of a program lie.
pub(super) trait Storage {
    fn arena(&self, arena: usize, offset: u64, elements: usize) -> Option<Span>;
    fn input(&self, tensor: Tensor) -> Option<Span>;
    fn weight(&self, name: &str, shape: &Shape, layout: Layout) -> backend::Result<Packed>;
}

/// Where `tensor` lies.
pub(super) fn locate(
    graph: &Graph,
    plan: &Plan,
    tensor: Tensor,
    storage: &dyn Storage,
) -> backend::Result<Span> {
    let root = plan.root(tensor);
    let node = graph.node(root);
    let found = match (&node.origin, plan.place(tensor)) {
        (Origin::Parameter { name }, _) => {
            match storage.weight(name, &node.shape, Layout::Plain)? {
                Packed::Plain(span) => Some(span),
                _ => None,
            }
        }
        (Origin::Input { .. }, _) => storage.input(root),
        (Origin::Operation { .. }, Some(Place::InPlace(input))) => storage.input(input),
        (Origin::Operation { .. }, Some(Place::Arena { arena, offset })) => {
            storage.arena(arena, offset, node.shape.elements())
        }
        (Origin::Operation { .. }, _) => None,
    };
    found.ok_or_else(|| graph::Error::unplaced(graph, tensor).into())
}

/// What a step reads, by the number of the input.
pub(crate) struct Inputs<'a> {
    spans: &'a [Option<Span>],
    joined: Option<&'a Span>,
    turn: &'a Turn<'a>,
}

impl Inputs<'_> {
    /// Input `index`; empty where the output stands in its place, or where it is a weight that
    /// kernels take in another layout.
    pub fn get(&self, index: usize) -> &[f32] {
        match self.spans.get(index) {
            // SAFETY: the turn is held, and when the step was compiled it was checked that it
            // writes to none of these.
            Some(Some(span)) => unsafe { span.read(self.turn) },
            _ => &[],
        }
    }

    /// What the step before makes, where it is joined to this one: to be written.
    ///
    /// # Safety
    /// A run may ask once.
    #[expect(clippy::mut_from_ref, reason = "asked for once, while the turn is held")]
    pub unsafe fn joined(&self) -> &mut [f32] {
        // SAFETY: the turn is held, and when the step was compiled it was checked that this
        // overlaps nothing else.
        self.joined.map(|span| unsafe { span.write(self.turn) }).unwrap_or_default()
    }

    /// Input `index` of indices.
    pub fn ids(&self, index: usize) -> &[u32] {
        bytemuck::cast_slice(self.get(index))
    }
}

/// Whether step `number` of the plan is done in one go with the one after it, which reads the same.
pub(super) fn is_joined(plan: &Plan, number: usize) -> bool {
    let (Some(step), Some(next)) = (plan.steps.get(number), plan.steps.get(number + 1)) else {
        return false;
    };
    let plain = |step: &PlannedStep| step.epilogue.is_empty() && step.padding.is_none();
    let joins = || computing_of(&*next.operation).is_some_and(|c| c.joins(&*step.operation));
    let apart = number + 1 == plan.once;
    !apart && step.inputs == next.inputs && plain(step) && plain(next) && joins()
}

/// Makes a result of inputs and epilogue; the last is scratch.
type Run = dyn Fn(&Inputs<'_>, &[Entry<'_>], &mut [f32], &mut [f32]) + Send + Sync;

/// A step, compiled: where it reads and writes, and what it does.
pub(crate) struct Task {
    inputs: Vec<Option<Span>>,
    epilogue: Vec<EntryAt>,
    output: Span,
    /// Of the step before, where that is done in the same go.
    joined: Option<Span>,
    scratch: Option<Span>,
    run: Box<Run>,
}

impl Task {
    pub(super) fn output(&self) -> &Span {
        &self.output
    }

    /// What the step before makes, where that is done in the same go.
    pub(super) fn joined(&self) -> Option<&Span> {
        self.joined.as_ref()
    }

    /// Bytes that it reads and writes, weights aside.
    pub(super) fn bytes(&self) -> u64 {
        let operands = self.epilogue.iter().flat_map(EntryAt::spans);
        let outputs = [&self.output].into_iter().chain(&self.joined);
        self.inputs.iter().flatten().chain(operands).chain(outputs).map(Span::bytes).sum()
    }

    pub(super) fn run(&self, turn: &Turn<'_>) {
        /// Entries of an epilogue that cost no allocation.
        const MOST: usize = 16;
        let inputs = Inputs { spans: &self.inputs, joined: self.joined.as_ref(), turn };
        // SAFETY: the turn is held, and when the step was compiled it was checked that what it
        // writes overlaps nothing else.
        let (y, scratch) = unsafe {
            (self.output.write(turn), self.scratch.as_ref().map(|span| span.write(turn)))
        };
        let scratch = scratch.unwrap_or_default();
        if self.epilogue.len() > MOST {
            let all: Vec<Entry<'_>> = self.epilogue.iter().map(|entry| entry.at(turn)).collect();
            return (self.run)(&inputs, &all, y, scratch);
        }
        let mut all = [Entry::Scale(1.0); MOST];
        for (entry, from) in all.iter_mut().zip(&self.epilogue) {
            *entry = from.at(turn);
        }
        (self.run)(&inputs, &all[..self.epilogue.len()], y, scratch);
    }
}

/// An entry of an epilogue with the places of its operands.
enum EntryAt {
    Function(functions::Function),
    Scale(f32),
    Add(Span, entries::Broadcast),
    Multiply(Span, entries::Broadcast),
    Derivative(functions::Function, Span),
    Lora { hidden: Span, up: Span, rank: usize, transposed: bool },
}

impl EntryAt {
    fn spans(&self) -> impl Iterator<Item = &Span> + Clone {
        let [a, b] = match self {
            EntryAt::Function(_) | EntryAt::Scale(_) => [None, None],
            EntryAt::Add(t, _) | EntryAt::Multiply(t, _) | EntryAt::Derivative(_, t) => {
                [Some(t), None]
            }
            EntryAt::Lora { hidden, up, .. } => [Some(hidden), Some(up)],
        };
        a.into_iter().chain(b)
    }

    fn at<'a>(&'a self, turn: &'a Turn<'_>) -> Entry<'a> {
        // SAFETY: the turn is held, and when the step was compiled it was checked that it writes to
        // none of these.
        let read = |span: &'a Span| unsafe { span.read(turn) };
        match self {
            EntryAt::Function(function) => Entry::Function(*function),
            EntryAt::Scale(factor) => Entry::Scale(*factor),
            EntryAt::Add(t, broadcast) => Entry::Add(read(t), *broadcast),
            EntryAt::Multiply(t, broadcast) => Entry::Multiply(read(t), *broadcast),
            EntryAt::Derivative(function, t) => Entry::Derivative(*function, read(t)),
            EntryAt::Lora { hidden, up, rank, transposed } => Entry::Lora {
                hidden: read(hidden),
                up: read(up),
                rank: *rank,
                transposed: *transposed,
            },
        }
    }
}

fn function(function: Function) -> functions::Function {
    match function {
        Function::Silu => functions::Function::Silu,
        Function::Gelu => functions::Function::Gelu,
        Function::GeluTanh => functions::Function::GeluTanh,
        Function::QuickGelu => functions::Function::QuickGelu,
        Function::Relu => functions::Function::Relu,
        Function::Exp => functions::Function::Exp,
    }
}

fn broadcast(broadcast: Broadcast) -> entries::Broadcast {
    match broadcast {
        Broadcast::Same => entries::Broadcast::Same,
        Broadcast::Scalar => entries::Broadcast::Scalar,
        Broadcast::Trailing { rows, .. } => entries::Broadcast::Trailing { rows },
        Broadcast::Batch { rows, .. } => entries::Broadcast::Batch { rows },
    }
}

/// One step while it is compiled: its tensors, located.
pub(crate) struct StepBuilder<'a> {
    graph: &'a Graph,
    step: &'a PlannedStep,
    pub level: Level,
    in_place: bool,
    inputs: Vec<Option<Span>>,
    packed: HashMap<usize, Packed>,
    epilogue: Vec<EntryAt>,
    output: Span,
    joined: Option<Span>,
    /// The two steps that follow this one and read what it makes are done in one go.
    read_by_joined: bool,
    scratch: Option<Span>,
}

impl<'a> StepBuilder<'a> {
    /// Finds everything that step `number` of the plan reads and writes.
    fn new(
        graph: &'a Graph,
        plan: &'a Plan,
        number: usize,
        level: Level,
        storage: &dyn Storage,
    ) -> backend::Result<Self> {
        let step = &plan.steps[number];
        let replaced = match plan.place(step.output) {
            Some(Place::InPlace(_)) => step.operation.in_place(),
            _ => None,
        };
        let (mut inputs, mut packed) = (Vec::with_capacity(step.inputs.len()), HashMap::new());
        for (index, &tensor) in step.inputs.iter().enumerate() {
            let layout = layout_of(&*step.operation, index);
            let node = graph.node(plan.root(tensor));
            let span = match &node.origin {
                Origin::Parameter { name } => match storage.weight(name, &node.shape, layout)? {
                    Packed::Plain(span) => Some(span),
                    other => {
                        packed.insert(index, other);
                        None
                    }
                },
                _ if layout.is_packed() => {
                    return Err(backend::Error::NotAParameter {
                        operation: step.operation.name(),
                        layer: step.layer.to_string(),
                        device: DEVICE.into(),
                    });
                }
                _ if replaced == Some(index) => None,
                _ => Some(locate(graph, plan, tensor, storage)?),
            };
            inputs.push(span);
        }
        let at = |tensor: Tensor| locate(graph, plan, tensor, storage);
        let mut epilogue = Vec::with_capacity(step.epilogue.len());
        for entry in &step.epilogue {
            epilogue.push(match *entry {
                Epilogue::Function(f) => EntryAt::Function(function(f)),
                Epilogue::Scale(factor) => EntryAt::Scale(factor),
                Epilogue::Add(t, how) => EntryAt::Add(at(t)?, broadcast(how)),
                Epilogue::Multiply(t, how) => EntryAt::Multiply(at(t)?, broadcast(how)),
                Epilogue::Derivative(f, t) => EntryAt::Derivative(function(f), at(t)?),
                Epilogue::Lora { hidden, up, transposed } => {
                    let rank = graph.shape(hidden).channels();
                    EntryAt::Lora { hidden: at(hidden)?, up: at(up)?, rank, transposed }
                }
            });
        }
        let output = at(step.output)?;
        let before = number.checked_sub(1).filter(|before| is_joined(plan, *before));
        let joined = before.map(|before| at(plan.steps[before].output)).transpose()?;
        let read_by_joined = is_joined(plan, number + 1)
            && plan.steps[number + 1].inputs.iter().any(|&t| plan.root(t) == step.output);
        let scratch = match (plan.scratch_place(number), step.scratch) {
            (Some(Place::Arena { arena, offset }), Some(elements)) => {
                storage.arena(arena, offset, elements)
            }
            _ => None,
        };
        Ok(StepBuilder {
            graph,
            step,
            level,
            in_place: replaced.is_some(),
            inputs,
            packed,
            epilogue,
            output,
            joined,
            read_by_joined,
            scratch,
        })
    }

    pub fn input_shape(&self, index: usize) -> &'a Shape {
        self.graph.shape(self.step.inputs[index])
    }

    pub fn inputs(&self) -> usize {
        self.step.inputs.len()
    }

    /// Shape of the operation's own result (what is folded in keeps its rows and channels).
    pub fn shape(&self) -> &'a Shape {
        self.graph.shape(self.step.result)
    }

    /// Whether the output stands where the input of [`Operation::in_place`] stood, which it
    /// replaces.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }

    /// Whether the step before, which reads the same, is to be done in the same go.
    pub fn is_joined(&self) -> bool {
        self.joined.is_some()
    }

    /// Whether two steps that follow and read what this one makes are done in one go.
    pub fn is_read_by_joined(&self) -> bool {
        self.read_by_joined
    }

    /// The weight of a matmul or a convolution.
    pub fn matmul_weight(&self, index: usize) -> Arc<super::weights::Held> {
        match self.packed.get(&index) {
            Some(Packed::Matmul(weights)) => weights.clone(),
            // Its layout says that it is one.
            _ => {
                unreachable!("input {index} of {} is no packed weight", self.step.operation.name())
            }
        }
    }

    /// The rows of a table, where it is a weight.
    pub fn table(&self, index: usize) -> Option<Arc<super::weights::Table>> {
        match self.packed.get(&index) {
            Some(Packed::Rows(table)) => Some(table.clone()),
            _ => None,
        }
    }

    /// Zeros that the step writes around its result.
    pub fn padding(&self) -> Option<Padding> {
        self.padded(self.step.padding?)
    }

    /// Zeros at these edges around the result of the shape of input 0.
    pub fn padded(&self, edges: [usize; 4]) -> Option<Padding> {
        let shape = if self.step.padding.is_some() { self.shape() } else { self.input_shape(0) };
        let [_, height, width, _] = shape.image().ok()?;
        Some(Padding { height, width, edges })
    }

    /// Puts a low-rank update of inputs `hidden` and `up` before the epilogue.
    pub fn add_lora(&mut self, hidden: usize, up: usize, transposed: bool) {
        let rank = self.input_shape(hidden).channels();
        if let (Some(hidden), Some(up)) = (self.inputs[hidden].clone(), self.inputs[up].clone()) {
            self.epilogue.insert(0, EntryAt::Lora { hidden, up, rank, transposed });
        }
    }

    /// The task that `run` does: it gets the inputs, the epilogue, the output and the scratch.
    pub fn task(
        self,
        run: impl Fn(&Inputs<'_>, &[Entry<'_>], &mut [f32], &mut [f32]) + Send + Sync + 'static,
    ) -> Task {
        let StepBuilder { inputs, epilogue, output, joined, scratch, .. } = self;
        Task { inputs, epilogue, output, joined, scratch, run: Box::new(run) }
    }
}

/// As errors call what runs here.
const DEVICE: &str = "the processor";

/// PlannedStep `number` of the plan, ready to run.
pub(super) fn compile(
    graph: &Graph,
    plan: &Plan,
    number: usize,
    level: Level,
    storage: &dyn Storage,
) -> backend::Result<Task> {
    let step = &plan.steps[number];
    let (operation, layer) = (step.operation.name(), || step.layer.to_string());
    let Some(compute) = computing_of(&*step.operation) else {
        return Err(backend::Error::NotImplemented {
            operation,
            layer: layer(),
            device: DEVICE.into(),
        });
    };
    let task = compute.compile(StepBuilder::new(graph, plan, number, level, storage)?);
    let reads = task.inputs.iter().flatten().chain(task.epilogue.iter().flat_map(EntryAt::spans));
    let writes: Vec<&Span> =
        [&task.output].into_iter().chain(&task.joined).chain(&task.scratch).collect();
    if !disjoint(reads, &writes) {
        return Err(Error::Overlap { operation, layer: layer() }.into());
    }
    Ok(task)
}
