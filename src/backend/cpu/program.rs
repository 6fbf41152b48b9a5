//! A plan on the processor: memory given out, steps compiled; run any number of times.

use std::collections::HashMap;
use std::sync::Arc;

use super::Cpu;
use super::layout::Layout;
use super::lower::{Storage, compile, is_joined, locate};
use super::memory::{Block, Span};
use super::ops::layout_of;
use super::packed::Packed;
use super::task::Task;
use super::weights::Weights;
use crate::backend::{Cost, Error, Executable, Look, Result, Timed, View};
use crate::graph::{Epilogue, Graph, Origin, Place, Plan, PlannedStep, Shape, Tensor};

/// A plan ready to run.
pub(super) struct Program {
    cpu: Arc<Cpu>,
    steps: Vec<Compiled>,
    /// What inputs become after a run: from, to.
    assignments: Vec<(Span, Span)>,
    inputs: HashMap<Tensor, Span>,
    outputs: Vec<Span>,
}

/// One step of the plan.
struct Compiled {
    operation: &'static str,
    /// The operation of the step before, where that is done in the same go.
    joined: Option<&'static str>,
    layer: Arc<str>,
    task: Task,
    flops: u64,
    bytes: u64,
}

/// Where things lie while a program is made.
struct Places<'a> {
    arenas: Vec<Arc<Block>>,
    inputs: HashMap<Tensor, Span>,
    weights: &'a Weights,
}

impl Storage for Places<'_> {
    fn arena(&self, arena: usize, offset: u64, elements: usize) -> Option<Span> {
        Span::new(self.arenas.get(arena)?, offset, elements)
    }

    fn input(&self, tensor: Tensor) -> Option<Span> {
        self.inputs.get(&tensor).cloned()
    }

    fn weight(&self, name: &str, shape: &Shape, layout: Layout) -> Result<Packed> {
        self.weights.locate(name, shape, layout)
    }
}

impl Program {
    /// Loads what is missing of the weights, compiles, and runs the steps that are to run once.
    pub fn new(weights: &Weights, graph: &Graph, plan: &Plan) -> Result<Program> {
        let cpu = weights.cpu.clone();
        let block = |what: &str, bytes: u64| Block::new(cpu.usage(), what, bytes);
        let arenas = plan
            .arenas
            .iter()
            .map(|&bytes| block("activations", bytes))
            .collect::<Result<_, _>>()?;
        let mut inputs = HashMap::new();
        for tensor in graph.tensors() {
            let node = graph.node(tensor);
            if let Origin::Input { name } = &node.origin {
                let elements = node.shape.elements();
                let block = block(name, plan.bytes(graph, tensor))?;
                inputs.extend(Span::new(&block, 0, elements).map(|span| (tensor, span)));
            }
        }
        let places = Places { arenas, inputs, weights };
        let mut steps = Vec::with_capacity(plan.steps.len());
        let mut once = plan.once;
        let mut before: Option<&PlannedStep> = None;
        for (number, step) in plan.steps.iter().enumerate() {
            if is_joined(plan, number) {
                before = Some(step);
                once -= usize::from(number < plan.once);
                continue;
            }
            let before = before.take();
            let task = compile(graph, plan, number, cpu.level(), &places)?;
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
        let once: Vec<Compiled> = steps.drain(..once).collect();
        if !once.is_empty() {
            cpu.run(|turn| once.iter().for_each(|step| step.task.run(turn)));
        }
        let at = |tensor: Tensor| locate(graph, plan, tensor, &places);
        let mut assignments = Vec::new();
        for &(input, tensor) in graph.assignments() {
            if plan.place(tensor) != Some(Place::InPlace(input)) {
                assignments.push((at(tensor)?, at(input)?));
            }
        }
        let outputs = plan.outputs.iter().map(|&tensor| at(tensor)).collect::<Result<_>>()?;
        Ok(Program { cpu, steps, assignments, inputs: places.inputs, outputs })
    }
}

/// Floating-point operations of a step, and of a low-rank update that was folded into it.
fn flops(graph: &Graph, step: &PlannedStep) -> u64 {
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

impl Executable for Program {
    fn input(&self, tensor: Tensor) -> Option<View> {
        self.inputs.get(&tensor).cloned().map(View::new)
    }

    fn output(&self, index: usize) -> View {
        View::new(self.outputs[index].clone())
    }

    fn write(&self, view: &View, bytes: &[u8]) {
        if let Some(span) = view.get::<Span>() {
            span.set_bytes(bytes, &self.cpu.turn());
        }
    }

    fn read(&self, view: &View) -> Result<Vec<u8>> {
        match view.get::<Span>() {
            Some(span) => Ok(span.to_bytes(&self.cpu.turn())),
            None => Err(Error::OtherDevice),
        }
    }

    fn run(&self) {
        self.cpu.run(|turn| {
            self.steps.iter().for_each(|step| step.task.run(turn));
            self.assignments.iter().for_each(|(from, to)| from.copy_to(to, turn));
        });
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    fn trace(&self, look: Look<'_>) -> Result<()> {
        for step in &self.steps {
            let made = self.cpu.run(|turn| {
                step.task.run(turn);
                let before = step.joined.zip(step.task.joined());
                let outputs = before.into_iter().chain([(step.operation, step.task.output())]);
                outputs.map(|(name, span)| (name, span.to_bytes(turn))).collect::<Vec<_>>()
            });
            for (operation, bytes) in made {
                let values = bytemuck::pod_collect_to_vec::<u8, f32>(&bytes);
                if !look(operation, &step.layer, &values) {
                    return Ok(());
                }
            }
        }
        self.cpu.run(|turn| self.assignments.iter().for_each(|(from, to)| from.copy_to(to, turn)));
        Ok(())
    }

    fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        let mut costs: HashMap<String, Cost> = HashMap::new();
        for Timed { what, cost: one, .. } in self.timeline(clock)? {
            let cost = costs.entry(what).or_default();
            cost.calls += one.calls;
            cost.seconds += one.seconds;
            cost.flops += one.flops;
            cost.bytes += one.bytes;
        }
        Ok(costs)
    }

    fn timeline(&self, clock: &dyn Fn() -> f64) -> Result<Vec<Timed>> {
        let mut timed = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let start = clock();
            self.cpu.run(|turn| step.task.run(turn));
            let seconds = clock() - start;
            let cost = Cost { calls: 1, seconds, flops: step.flops, bytes: step.bytes };
            let (what, layer) = (step.operation.to_string(), step.layer.to_string());
            timed.push(Timed { what, layer, cost });
        }
        self.cpu.run(|turn| self.assignments.iter().for_each(|(from, to)| from.copy_to(to, turn)));
        Ok(timed)
    }

    fn flops(&self) -> u64 {
        self.steps.iter().map(|step| step.flops).sum()
    }

    fn bytes(&self) -> u64 {
        let copied: u64 = self.assignments.iter().map(|(from, _)| 2 * from.bytes()).sum();
        self.steps.iter().map(|step| step.bytes).sum::<u64>() + copied
    }

    fn commands(&self) -> usize {
        self.steps.len() + self.assignments.len()
    }
}
