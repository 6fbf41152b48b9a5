//! Steps of a plan, compiled: with where they read and write, and what they cost.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::Cpu;
use super::layout::Layout;
use super::lower::{Storage, compile, is_joined};
use super::memory::{Block, Span};
use super::ops::layout_of;
use super::packed::Packed;
use super::task::Task;
use super::weights::Weights;
use crate::backend::Result;
use crate::graph::{Epilogue, Graph, Origin, Plan, PlannedStep, Shape, Tensor};

/// One step of the plan.
pub(super) struct Compiled {
    pub operation: &'static str,
    /// The operation of the step before, where that is done in the same go.
    pub joined: Option<&'static str>,
    pub layer: Arc<str>,
    pub task: Task,
    pub flops: u64,
    pub bytes: u64,
}

/// Where arenas and inputs lie.
pub(super) struct Places {
    arenas: Vec<Arc<Block>>,
    pub inputs: HashMap<Tensor, Span>,
}

impl Places {
    pub fn new(cpu: &Cpu, graph: &Graph, plan: &Plan) -> Result<Places> {
        let block = |what: &str, bytes: u64| Block::new(cpu.usage(), what, bytes);
        let arenas = plan.arenas.iter().map(|&bytes| block("activations", bytes));
        let arenas = arenas.collect::<Result<_, _>>()?;
        let mut inputs = HashMap::new();
        for tensor in graph.tensors() {
            let node = graph.node(tensor);
            if let Origin::Input { name } = &node.origin {
                let elements = node.shape.elements();
                let block = block(name, plan.bytes(graph, tensor))?;
                inputs.extend(Span::new(&block, 0, elements).map(|span| (tensor, span)));
            }
        }
        Ok(Places { arenas, inputs })
    }
}

/// Where all lies while a program is made whose weights stay.
pub(super) struct AtRest<'a> {
    pub places: &'a Places,
    pub weights: &'a Weights,
}

impl Storage for AtRest<'_> {
    fn arena(&self, arena: usize, offset: u64, elements: usize) -> Option<Span> {
        self.places.arena(arena, offset, elements)
    }

    fn input(&self, tensor: Tensor) -> Option<Span> {
        self.places.inputs.get(&tensor).cloned()
    }

    fn weight(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Packed> {
        self.weights.locate(name, shape, layout)
    }
}

impl Places {
    pub fn arena(&self, arena: usize, offset: u64, elements: usize) -> Option<Span> {
        Span::new(self.arenas.get(arena)?, offset, elements)
    }
}

/// Some steps of a plan, ready to run; those that are done in one go are one.
pub(super) fn compile_steps(
    cpu: &Cpu,
    graph: &Graph,
    plan: &Plan,
    range: Range<usize>,
    storage: &dyn Storage,
) -> Result<Vec<Compiled>> {
    let mut steps = Vec::with_capacity(range.len());
    let mut before: Option<&PlannedStep> = None;
    for (number, step) in plan.steps.iter().enumerate().take(range.end).skip(range.start) {
        if is_joined(plan, number) {
            before = Some(step);
            continue;
        }
        let before = before.take();
        let task = compile(graph, plan, number, cpu.level(), storage)?;
        let bytes = task.bytes() + weight_bytes(graph, plan, step);
        steps.push(Compiled {
            operation: step.operation.name(),
            joined: before.map(|before| before.operation.name()),
            layer: step.layer.clone(),
            task,
            flops: flops(graph, step) + before.map_or(0, |before| flops(graph, before)),
            bytes,
        });
    }
    Ok(steps)
}

/// Floating-point operations of a step, and of a low-rank update that was folded into it.
pub(super) fn flops(graph: &Graph, step: &PlannedStep) -> u64 {
    let shapes: Vec<&Shape> = step.inputs.iter().map(|&t| graph.shape(t)).collect();
    let shape = graph.shape(step.result);
    let lora = |entry: &Epilogue| match entry {
        Epilogue::Lora { hidden, .. } => {
            2 * (shape.elements() * graph.shape(*hidden).channels()) as u64
        }
        _ => 0,
    };
    let folded: u64 = if step.operation.as_epilogue(&step.inputs, 0, graph).is_some() {
        0
    } else {
        step.epilogue.iter().map(lora).sum()
    };
    step.operation.flops(&shapes, shape) + folded
}

/// Bytes of packed weights that a step reads, as they would be in f32 at most.
fn weight_bytes(graph: &Graph, plan: &Plan, step: &PlannedStep) -> u64 {
    let packed = |(index, &tensor): (usize, &Tensor)| {
        let layout = layout_of(&*step.operation, index);
        let is_weight = matches!(graph.node(plan.root(tensor)).origin, Origin::Parameter { .. });
        if layout.is_packed() && is_weight { graph.shape(tensor).elements() as u64 * 2 } else { 0 }
    };
    step.inputs.iter().enumerate().map(packed).sum()
}
