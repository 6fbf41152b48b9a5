//! From the steps of a plan to tasks: every tensor located, every operation asked for its work.

use std::collections::HashMap;

use super::Error;
use super::compute::StepBuilder;
use super::layout::Layout;
use super::memory::{Span, disjoint};
use super::ops::{computing_of, layout_of};
use super::packed::Packed;
use super::task::{EntryAt, Task};
use crate::backend;
use crate::graph::ops::{Broadcast, Function};
use crate::graph::{
    self, Epilogue, Fold, Graph, Limits, Operation, Origin, Place, Plan, PlannedStep, Shape,
    Target, Tensor,
};
use cpu_kernels::activation as functions;
use cpu_kernels::epilogue as entries;
use cpu_kernels::simd::Level;

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

/// Finds everything that step `number` of the plan reads and writes.
fn locate_all<'a>(
    graph: &'a Graph,
    plan: &'a Plan,
    number: usize,
    level: Level,
    storage: &dyn Storage,
) -> backend::Result<StepBuilder<'a>> {
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
            // No plan for the processor has it.
            Epilogue::Geglu => {
                return Err(backend::Error::NotImplemented {
                    operation: "geglu",
                    layer: step.layer.to_string(),
                    device: DEVICE.into(),
                });
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
    let task = compute.compile(locate_all(graph, plan, number, level, storage)?);
    let reads = task.inputs.iter().flatten().chain(task.epilogue.iter().flat_map(EntryAt::spans));
    let writes: Vec<&Span> =
        [&task.output].into_iter().chain(&task.joined).chain(&task.scratch).collect();
    if !disjoint(reads, &writes) {
        return Err(Error::Overlap { operation, layer: layer() }.into());
    }
    Ok(task)
}
