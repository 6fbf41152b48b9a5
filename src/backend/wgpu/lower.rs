//! From the steps of a plan to kernel dispatches: every tensor located, every operation lowered.

use std::collections::HashMap;
use std::ops::Range;

use super::buffer::Slice;
use super::contract::check_step;
use super::kernel::Scalar;
use super::layout::{Held, Layout};
pub use super::lowering::BufferView;
use super::lowering::Lowering;
use super::matrices::Blocks;
use super::ops::{layout_of, lowering_of, may_be_halved};
use super::record::Command;
use super::traits::{Schedule, Traits};
use crate::backend::{Error, Result};
use crate::graph::{
    self, Epilogue, Fold, Graph, Node, Operation, Origin, Place, Plan, Shape, Target, Tensor,
};

impl Target for Traits {
    fn limits(&self) -> graph::Limits {
        self.limits
    }

    fn folds(&self, operation: &dyn Operation) -> Fold {
        lowering_of(operation).map_or(Fold::Nothing, |lower| lower.folds())
    }

    fn totals(
        &self,
        graph: &Graph,
        operation: &dyn Operation,
        inputs: &[&Shape],
        output: &Shape,
    ) -> Option<usize> {
        let suits = graph.holds_halves() && !graph.is_precise();
        lowering_of(operation)?.totals(inputs, output, self).filter(|_| suits)
    }

    fn gates(&self, graph: &Graph, operation: &dyn Operation, inputs: &[&Shape]) -> bool {
        let fours = |inputs: &[&Shape]| match inputs {
            // Of few outputs, blocks have no subgroups side by side for values and gates.
            [x, w, ..] => {
                x.channels().is_multiple_of(4) && w[0].is_multiple_of(8) && w[0] > Blocks::NARROW
            }
            _ => false,
        };
        matches!(self.schedule, Schedule::Matrices(_))
            && operation.name() == "linear"
            && graph.holds_halves()
            && !graph.is_precise()
            && fours(inputs)
    }

    fn scratch(
        &self,
        operation: &dyn Operation,
        inputs: &[&Shape],
        output: &Shape,
    ) -> Option<usize> {
        lowering_of(operation)?.scratch(inputs, output, self)
    }

    fn storage(&self, graph: &Graph, tensor: Tensor) -> graph::Storage {
        // Pixels, latents and the like are few, and what comes of them is looked at.
        const FEW_CHANNELS: usize = 8;
        let node = graph.node(tensor);
        match &node.origin {
            Origin::Operation { operation, .. }
                if self.halves
                    && graph.rounds_activations()
                    && node.shape.channels() >= FEW_CHANNELS
                    && may_be_halved(&**operation)
                    && (!graph.rounds_gradients() || is_of_a_layer(node)) =>
            {
                graph::Storage::F16
            }
            _ => graph::Storage::of(node.element),
        }
    }
}

/// Whether a node is an activation of a network, or the gradient of one: neither a loss nor what
/// becomes of gradients, which stand in no layer, nor anything of matrices.
fn is_of_a_layer(node: &Node) -> bool {
    !node.layer.is_empty() && node.shape.len() > 2
}

/// What a buffer holds.
#[derive(Clone, Copy, Debug)]
pub enum Storage<'a> {
    /// Activations: an arena of the plan, by its number.
    Arena(usize),
    /// An input of the graph.
    Input(Tensor),
    /// A weight of the model, packed for a kernel.
    Weight {
        /// As the graph calls it.
        name: &'a str,
        /// As the graph has it.
        shape: &'a Shape,
        /// How it is packed.
        layout: Layout,
    },
}

/// The dispatches and copies of one run of `plan`, given what stands in which buffer (arenas and
/// inputs as a whole). Needs no device but for the buffers.
pub fn commands(
    graph: &Graph,
    plan: &Plan,
    traits: &Traits,
    storage: &dyn Fn(Storage<'_>) -> Result<BufferView>,
) -> Result<Vec<Command>> {
    let mut commands =
        commands_of_steps(graph, plan, traits, storage, plan.once..plan.steps.len())?.0;
    commands.extend(assignments(graph, plan, storage)?);
    Ok(commands)
}

/// The copies that give inputs their new values.
pub(super) fn assignments(
    graph: &Graph,
    plan: &Plan,
    storage: &dyn Fn(Storage<'_>) -> Result<BufferView>,
) -> Result<Vec<Command>> {
    let mut commands = Vec::new();
    for &(input, tensor) in graph.assignments() {
        if plan.place(tensor) == Some(Place::InPlace(input)) {
            continue;
        }
        let from = locate(graph, plan, tensor, Layout::Plain, storage)?.slice;
        let to = locate(graph, plan, input, Layout::Plain, storage)?.slice;
        commands.push(Command::Copy { from: from.clone(), to: Slice { size: from.size, ..to } });
    }
    Ok(commands)
}

/// What is to be done once before the first run: the steps that depend on nothing but parameters.
pub fn preparation(
    graph: &Graph,
    plan: &Plan,
    traits: &Traits,
    storage: &dyn Fn(Storage<'_>) -> Result<BufferView>,
) -> Result<Vec<Command>> {
    Ok(commands_of_steps(graph, plan, traits, storage, 0..plan.once)?.0)
}

/// The commands of some steps of the plan, and for each step how many there are up to its last.
pub(super) fn commands_of_steps(
    graph: &Graph,
    plan: &Plan,
    traits: &Traits,
    storage: &dyn Fn(Storage<'_>) -> Result<BufferView>,
    range: Range<usize>,
) -> Result<(Vec<Command>, Vec<usize>)> {
    let mut commands = Vec::new();
    let mut ends = Vec::with_capacity(range.len());
    let rounds = rounds(graph, plan, traits, storage)?;
    for (number, step) in plan.steps.iter().enumerate().take(range.end).skip(range.start) {
        check_step(graph, plan, step, traits).map_err(|problem| Error::Unfit {
            operation: step.operation.name(),
            layer: step.layer.to_string(),
            device: DEVICE.into(),
            problem,
        })?;
        // Everything the step reads and writes, found before lowering so that lowering cannot fail.
        let mut here: HashMap<Tensor, BufferView> = HashMap::new();
        let reads =
            step.inputs.iter().enumerate().map(|(i, &t)| (t, layout_of(&*step.operation, i)));
        let operands =
            step.epilogue.iter().flat_map(Epilogue::operands).map(|t| (t, Layout::Plain));
        for (t, layout) in reads.chain(operands) {
            let layout = layout.suited(graph.shape(plan.root(t)));
            let rearranged = !matches!(layout, Layout::Plain | Layout::Rows);
            if rearranged && !matches!(graph.node(plan.root(t)).origin, Origin::Parameter { .. }) {
                return Err(Error::NotAParameter {
                    operation: step.operation.name(),
                    layer: step.layer.to_string(),
                    device: DEVICE.into(),
                });
            }
            here.insert(t, locate(graph, plan, t, layout, storage)?);
        }
        let output = locate(graph, plan, step.output, Layout::Plain, storage)?;
        here.insert(step.output, output.clone());
        let scratch = match (plan.scratch_place(number), step.scratch) {
            (Some(Place::Arena { arena, offset }), Some(elements)) => {
                Some(arena_slice(arena, offset, elements as u64 * 4, storage)?.slice)
            }
            _ => None,
        };
        let maker = step.totals_of.unwrap_or(number);
        let totals = match (plan.totals_place(maker), plan.steps[maker].totals) {
            (Some(Place::Arena { arena, offset }), Some(chunks)) => {
                let shape = graph.shape(plan.steps[maker].result);
                let bytes = (shape[0] * chunks * 2 * shape.channels() * 4) as u64;
                Some((arena_slice(arena, offset, bytes, storage)?.slice, chunks))
            }
            _ => None,
        };
        let locate = |t: Tensor| here.get(&t).cloned().unwrap_or_else(|| output.clone());
        let in_place = matches!(plan.place(step.output), Some(Place::InPlace(_)));
        let mut lowering = Lowering {
            graph,
            step,
            traits: *traits,
            locate: &locate,
            scratch,
            totals,
            in_place,
            rounds,
            commands: &mut commands,
            lacks_kernel: false,
        };
        match lowering_of(&*step.operation) {
            Some(operation) => operation.lower(&mut lowering),
            None => lowering.no_kernel(),
        }
        if lowering.lacks_kernel {
            return Err(Error::NotImplemented {
                operation: step.operation.name(),
                layer: step.layer.to_string(),
                device: DEVICE.into(),
            });
        }
        ends.push(commands.len());
    }
    Ok((commands, ends))
}

/// As errors call what runs here.
const DEVICE: &str = "a graphics device";

/// See [`Lowering::rounds`].
fn rounds(
    graph: &Graph,
    plan: &Plan,
    traits: &Traits,
    storage: &dyn Fn(Storage<'_>) -> Result<BufferView>,
) -> Result<bool> {
    if graph.is_precise() || !matches!(traits.schedule, Schedule::Matrices(_)) {
        return Ok(false);
    }
    let mut some = false;
    for step in &plan.steps {
        for (index, &tensor) in step.inputs.iter().enumerate() {
            let root = plan.root(tensor);
            if matches!(graph.node(root).origin, Origin::Parameter { .. }) {
                let layout = layout_of(&*step.operation, index).suited(graph.shape(root));
                if locate(graph, plan, tensor, layout, storage)?.held != Held::F32 {
                    return Ok(true);
                }
                some = true;
            }
        }
    }
    Ok(!some)
}

/// Where `tensor` stands, read in `layout` if it is a weight.
pub(super) fn locate(
    graph: &Graph,
    plan: &Plan,
    tensor: Tensor,
    layout: Layout,
    storage: &dyn Fn(Storage<'_>) -> Result<BufferView>,
) -> Result<BufferView> {
    let root = plan.root(tensor);
    let node = graph.node(root);
    match (&node.origin, plan.place(tensor)) {
        (Origin::Parameter { name }, _) => {
            storage(Storage::Weight { name, shape: &node.shape, layout })
        }
        (Origin::Input { .. }, _) => storage(Storage::Input(root)),
        (Origin::Operation { .. }, Some(Place::InPlace(input))) => storage(Storage::Input(input)),
        (Origin::Operation { .. }, Some(Place::Arena { arena, offset })) => {
            let at = arena_slice(arena, offset, plan.bytes(graph, tensor), storage)?;
            Ok(match plan.storage(tensor) {
                graph::Storage::F16 => BufferView { scalar: Scalar::F16, ..at },
                _ => at,
            })
        }
        (Origin::Operation { .. }, _) => Err(graph::Error::unplaced(graph, tensor).into()),
    }
}

fn arena_slice(
    arena: usize,
    offset: u64,
    bytes: u64,
    storage: &dyn Fn(Storage<'_>) -> Result<BufferView>,
) -> Result<BufferView> {
    let at = storage(Storage::Arena(arena))?;
    let size = bytes.next_multiple_of(4).max(4);
    Ok(BufferView { slice: Slice { offset, size, ..at.slice }, ..at })
}
