//! Which weights the steps of a plan read, and in which layouts.

use std::collections::HashMap;

use super::layout::Layout;
use super::ops::layout_of;
use super::weights::Weights;
use crate::backend::Result;
use crate::graph::{Epilogue, Graph, Origin, Plan, PlannedStep, Shape, Tensor};

/// A weight as it is held.
pub(super) type Key = (String, Layout);

/// Those that a step reads, each with its bytes.
fn uses_of(
    weights: &Weights,
    graph: &Graph,
    plan: &Plan,
    step: &PlannedStep,
) -> Result<Vec<(Key, u64)>> {
    let inputs = step.inputs.iter().enumerate().map(|(i, &t)| (t, layout_of(&*step.operation, i)));
    let operands = step.epilogue.iter().flat_map(Epilogue::operands).map(|t| (t, Layout::Plain));
    let mut uses = Vec::new();
    for (tensor, layout) in inputs.chain(operands) {
        if let Some((name, shape)) = weight(graph, plan, tensor) {
            let layout = layout.held(shape);
            uses.push(((name.to_string(), layout), weights.bytes(name, shape, layout)?));
        }
    }
    Ok(uses)
}

/// The weight that a tensor is.
fn weight<'a>(graph: &'a Graph, plan: &Plan, tensor: Tensor) -> Option<(&'a str, &'a Shape)> {
    let node = graph.node(plan.root(tensor));
    match &node.origin {
        Origin::Parameter { name } => Some((name, &node.shape)),
        _ => None,
    }
}

/// The weights that each step of a plan reads.
pub(super) fn uses_of_steps(
    weights: &Weights,
    graph: &Graph,
    plan: &Plan,
) -> Result<Vec<Vec<(Key, u64)>>> {
    plan.steps.iter().map(|step| uses_of(weights, graph, plan, step)).collect()
}

/// The shapes of all weights of a graph.
pub(super) fn shapes(graph: &Graph) -> HashMap<&str, &Shape> {
    let nodes = graph.nodes().iter();
    let shapes = nodes.filter_map(|node| match &node.origin {
        Origin::Parameter { name } => Some((name.as_str(), &node.shape)),
        _ => None,
    });
    shapes.collect()
}
