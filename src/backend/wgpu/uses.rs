//! Which weights the steps of a plan read, and in which layouts.

use std::collections::HashMap;

use super::layout::Layout;
use super::ops::layout_of;
use super::weights::Weights;
use crate::backend::Result;
use crate::graph::{Epilogue, Graph, Origin, Plan, PlannedStep, Shape, Tensor};

/// A weight as it lies on the device.
pub(super) type Key = (String, Layout);

/// Those that a step reads.
fn used<'a>(
    graph: &'a Graph,
    plan: &'a Plan,
    step: &'a PlannedStep,
) -> Vec<(&'a str, Layout, &'a Shape)> {
    let weight = |t: Tensor, layout: Layout| match &graph.node(plan.root(t)).origin {
        Origin::Parameter { name } => {
            Some((name.as_str(), layout, &graph.node(plan.root(t)).shape))
        }
        _ => None,
    };
    let inputs = step.inputs.iter().enumerate().map(|(i, &t)| (t, layout_of(&*step.operation, i)));
    let operands = step.epilogue.iter().flat_map(Epilogue::operands).map(|t| (t, Layout::Plain));
    let suited =
        move |(t, layout): (Tensor, Layout)| weight(t, layout.suited(graph.shape(plan.root(t))));
    inputs.chain(operands).filter_map(suited).collect()
}

/// The weights that each step of a plan reads, with their bytes.
pub(super) fn uses_of_steps(
    weights: &Weights,
    graph: &Graph,
    plan: &Plan,
) -> Result<Vec<Vec<(Key, u64)>>> {
    let bytes = |(name, layout, shape): (&str, Layout, &Shape)| {
        Ok(((name.to_string(), layout), weights.bytes(name, shape, layout)?))
    };
    let of = |step| used(graph, plan, step).into_iter().map(bytes).collect();
    plan.steps.iter().map(of).collect()
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
