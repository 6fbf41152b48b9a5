//! A graphics device as the rest of the program sees it.

use std::collections::HashSet;
use std::sync::Arc;

use super::buffer::Slice;
use super::device::Gpu;
use super::layout::Layout;
use super::ops::layout_of;
use super::program::Program;
use super::record::{Command, Recording};
use super::traits::Schedule;
use super::weights::Weights;
use crate::backend::{self, Backend, Executable, Precision, Result, View, WeightStore};
use crate::graph::{Epilogue, Graph, Origin, ParameterSource, Plan, Shape, Target, Tensor};

impl Backend for Gpu {
    fn name(&self) -> &str {
        &self.info.name
    }

    fn is_processor(&self) -> bool {
        self.is_software()
    }

    fn rounds_to_f16(&self) -> bool {
        matches!(self.schedule(), Schedule::Matrices(_))
    }

    fn rounds_gradients(self: Arc<Self>) -> Result<(), String> {
        self.gradients_by_matrices().map_err(str::to_string)
    }

    fn halves_activations(&self) -> bool {
        self.activations().is_ok()
    }

    fn target(&self) -> &dyn Target {
        self.traits()
    }

    fn weights(
        self: Arc<Self>,
        source: Arc<dyn ParameterSource + Send>,
        precision: Precision,
    ) -> Box<dyn WeightStore> {
        Box::new(Weights::new(self, source, precision))
    }

    fn copies(
        self: Arc<Self>,
        copies: &[(View, View)],
    ) -> backend::Result<Box<dyn Fn() + Send + Sync>> {
        let slice = |view: &View| view.get::<Slice>().cloned().ok_or(backend::Error::OtherDevice);
        let copy = |(from, to): &(View, View)| {
            let (from, to) = (slice(from)?, slice(to)?);
            let size = from.size.min(to.size);
            Ok(Command::Copy { from: Slice { size, ..from }, to: Slice { size, ..to } })
        };
        let commands: Vec<Command> = copies.iter().map(copy).collect::<backend::Result<_>>()?;
        let recording = Recording::new(&self, &commands)?;
        Ok(Box::new(move || recording.play()))
    }

    fn memory(&self) -> [u64; 2] {
        self.memory.now_and_peak()
    }
}

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
        let suited = move |(t, layout): (Tensor, Layout)| {
            weight(t, layout.suited(graph.shape(plan.root(t))))
        };
        inputs.chain(operands).filter_map(suited).collect::<Vec<_>>()
    })
}
