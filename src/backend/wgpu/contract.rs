//! What kernels without run-time checks rely on, looked at in a plan before it is recorded: plans,
//! operations and epilogues may come from anywhere.

use std::any::Any;

use super::ops::lowering_of;
use super::traits::Traits;
use crate::graph::ops::Broadcast;
use crate::graph::ops::lora_up::LoraUp;
use crate::graph::{
    Epilogue, Fold, Graph, MOST_FACTORS, Place, Plan, PlannedStep, Shape, Target, Tensor,
};

/// Whether the tensors of a step have the shapes that its operation, and what is folded into it,
/// read and write, or what is wrong.
pub(super) fn check_step(
    graph: &Graph,
    plan: &Plan,
    step: &PlannedStep,
    traits: &Traits,
) -> Result<(), String> {
    let inputs: Vec<&Shape> = step.inputs.iter().map(|&t| graph.shape(t)).collect();
    let result = graph.shape(step.result);
    let made = step.operation.shape(&inputs)?;
    if made != *result {
        return Err(format!("it makes {made}, planned are {result}"));
    }
    for entry in &step.epilogue {
        check_entry(graph, result, entry)?;
    }
    check_together(step)?;
    let gated = check_gate(step, traits.gates(graph, &*step.operation, &inputs))?;
    let stored = match step.padding {
        None if gated => result.elements() / 2,
        None => result.elements(),
        Some([top, bottom, left, right]) => {
            let [batch, height, width, channels] = result.image()?;
            batch * (height + top + bottom) * (width + left + right) * channels
        }
    };
    let output = graph.shape(step.output);
    if output.elements() != stored {
        return Err(format!("it stores {stored} elements, planned are {output}"));
    }
    let lower = lowering_of(&*step.operation);
    let folds = lower.map_or(Fold::Nothing, |lower| lower.folds());
    let lora = |entry: &Epilogue| matches!(entry, Epilogue::Lora { .. });
    // An up-projection added to a base is an entry of its own step.
    let operation: &dyn Any = &*step.operation;
    let is_lora = operation.downcast_ref::<LoraUp>().is_some_and(|lora| lora.based);
    let takes_lora = is_lora || folds == Fold::LoraAndElementwise;
    let folded = (step.epilogue.is_empty() || folds != Fold::Nothing)
        && (!step.epilogue.iter().any(lora) || takes_lora)
        && (step.padding.is_none() || folds == Fold::ElementwiseAndPadding);
    if !folded {
        return Err(format!("its kernels fold {folds:?}, planned is more"));
    }
    let wanted = lower.and_then(|lower| lower.scratch(&inputs, result, traits)).unwrap_or(0);
    if let Some(chunks) = step.totals
        && traits.totals(graph, &*step.operation, &inputs, result) != Some(chunks)
    {
        return Err(format!("its kernels do not sum up channels in {chunks} chunks"));
    }
    if let Some(maker) = step.totals_of {
        check_totals(graph, plan, step, maker)?;
    } else if step.scratch.unwrap_or(0) < wanted {
        return Err(format!("it needs {wanted} elements of scratch, planned: {:?}", step.scratch));
    }
    let operands = step.epilogue.iter().flat_map(Epilogue::operands);
    let all = step.inputs.iter().copied().chain(operands).chain([step.output]);
    all.into_iter().try_for_each(|tensor| check_storage(graph, plan, tensor))
}

/// Whether step `maker` sums up what `step` reads.
fn check_totals(
    graph: &Graph,
    plan: &Plan,
    step: &PlannedStep,
    maker: usize,
) -> Result<(), String> {
    let made = plan.steps.get(maker).filter(|made| made.totals.is_some());
    let (Some(made), Some(&read)) = (made, step.inputs.first()) else {
        return Err("nobody sums up the channels that it reads".into());
    };
    let (stored, seen) = (graph.shape(made.result), graph.shape(read));
    let fits = step.operation.reads_totals()
        && plan.root(made.output) == plan.root(read)
        && made.padding.is_none()
        && stored[0] == seen[0]
        && stored.channels() == seen.channels()
        && stored.elements() == seen.elements();
    if fits { Ok(()) } else { Err("the channels that it reads are summed up otherwise".into()) }
}

/// Whether a step ends in a gated unit: the last of its epilogue, after what kernels that `gate` do
/// to both halves.
fn check_gate(step: &PlannedStep, gate: bool) -> Result<bool, String> {
    let is_gate = |entry: &Epilogue| matches!(entry, Epilogue::Geglu);
    let Some(at) = step.epilogue.iter().position(is_gate) else { return Ok(false) };
    let sums = step.epilogue[..at].iter().all(|entry| {
        matches!(
            entry,
            Epilogue::Add(_, Broadcast::Trailing { rows: 1, .. })
                | Epilogue::Lora { transposed: false, .. }
        )
    });
    if gate && sums && at + 1 == step.epilogue.len() && step.padding.is_none() {
        Ok(true)
    } else {
        Err("its kernels make no gated unit of that".into())
    }
}

/// A tensor that shares another's storage, or is computed in its place, has as many elements.
fn check_storage(graph: &Graph, plan: &Plan, tensor: Tensor) -> Result<(), String> {
    let shape = graph.shape(tensor);
    let mut stands = vec![plan.root(tensor)];
    if let Some(Place::InPlace(input)) = plan.place(tensor) {
        stands.push(input);
    }
    match stands.into_iter().find(|&t| graph.shape(t).elements() != shape.elements()) {
        Some(other) => Err(format!("{shape} stands in the place of {}", graph.shape(other))),
        None => Ok(()),
    }
}

/// What an entry reads has the elements that meet a result of shape `result`.
fn check_entry(graph: &Graph, result: &Shape, entry: &Epilogue) -> Result<(), String> {
    let (rows, channels) = (result.rows(), result.channels());
    let (operand, fits) = match entry {
        Epilogue::Function(_) | Epilogue::Scale(_) | Epilogue::Geglu => return Ok(()),
        Epilogue::Derivative(_, tensor) => {
            let operand = graph.shape(*tensor);
            (operand, operand.elements() == result.elements())
        }
        Epilogue::Add(tensor, broadcast) | Epilogue::Multiply(tensor, broadcast) => {
            let operand = graph.shape(*tensor);
            let fits = match *broadcast {
                Broadcast::Same => operand.elements() == result.elements(),
                Broadcast::Scalar => operand.elements() == 1,
                Broadcast::Trailing { rows: own, channels: of_row } => {
                    own > 0 && of_row == channels && operand.elements() == own * channels
                }
                Broadcast::Batch { rows: each, channels: of_row } => {
                    each > 0
                        && of_row == channels
                        && operand.elements() >= rows.div_ceil(each) * channels
                }
            };
            (operand, fits)
        }
        &Epilogue::Lora { hidden, up, transposed } => {
            let (hidden, up) = (graph.shape(hidden), graph.shape(up));
            let rank = hidden.channels();
            let wanted = if transposed { [rank, channels] } else { [channels, rank] };
            (up, hidden.rows() == rows && [up.rows(), up.channels()] == wanted)
        }
    };
    if fits { Ok(()) } else { Err(format!("{entry:?} of {operand} does not fit {result}")) }
}

/// Entries share one number of rows of each kind, and there are uniforms for so many factors.
fn check_together(step: &PlannedStep) -> Result<(), String> {
    let broadcasts = || step.epilogue.iter().filter_map(Epilogue::broadcast);
    let alike = |rows: Vec<usize>| rows.windows(2).all(|pair| pair[0] == pair[1]);
    let factors = step.epilogue.iter().filter(|entry| matches!(entry, Epilogue::Scale(_))).count();
    let loras = step.epilogue.iter().filter(|entry| matches!(entry, Epilogue::Lora { .. })).count();
    let fits = alike(broadcasts().filter_map(Broadcast::rows_per_batch).collect())
        && alike(broadcasts().filter_map(Broadcast::operand_rows).collect())
        && factors <= MOST_FACTORS
        && loras <= 1;
    if fits { Ok(()) } else { Err(format!("{:?} cannot be done in one go", step.epilogue)) }
}
