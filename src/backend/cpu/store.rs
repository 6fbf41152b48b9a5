//! The weights of a model as the rest of the program sees them: counted before they are loaded, and
//! compiled into programs.

use std::collections::HashSet;

use super::layout::Layout;
use super::ops::layout_of;
use super::program::Program;
use super::weights::Weights;
use crate::backend::{Executable, Result, WeightStore};
use crate::graph::{Epilogue, Graph, Origin, Plan, Shape, Tensor};

impl WeightStore for Weights {
    fn planned_bytes(&self, graph: &Graph, plan: &Plan) -> Result<u64> {
        let mut bytes = 0;
        let mut seen = HashSet::new();
        for (name, layout, shape) in used(graph, plan) {
            if seen.insert((name, layout)) {
                bytes += self.bytes(name, shape, layout)?;
            }
        }
        Ok(bytes)
    }

    fn retain(&self, wanted: &dyn Fn(&str) -> bool) {
        self.keep(wanted);
    }

    fn compile(&self, graph: &Graph, plan: &Plan) -> Result<Box<dyn Executable>> {
        Ok(Box::new(Program::new(self, graph, plan)?))
    }
}

/// The weights that a plan's steps read, with the layout each wants.
fn used<'a>(
    graph: &'a Graph,
    plan: &'a Plan,
) -> impl Iterator<Item = (&'a str, Layout, &'a Shape)> {
    let weight = |t: Tensor, layout: Layout| match &graph.node(plan.root(t)).origin {
        Origin::Parameter { name } => {
            Some((name.as_str(), layout, &graph.node(plan.root(t)).shape))
        }
        _ => None,
    };
    plan.steps.iter().flat_map(move |step| {
        let inputs =
            step.inputs.iter().enumerate().map(|(i, &t)| (t, layout_of(&*step.operation, i)));
        let operands =
            step.epilogue.iter().flat_map(Epilogue::operands).map(|t| (t, Layout::Plain));
        inputs
            .chain(operands)
            .filter_map(move |(t, layout)| weight(t, layout.held(graph.shape(plan.root(t)))))
            .collect::<Vec<_>>()
    })
}
