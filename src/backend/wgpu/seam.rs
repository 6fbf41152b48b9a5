//! A graphics device as the rest of the program sees it.

use std::sync::Arc;

use super::buffer::Slice;
use super::device::Gpu;
use super::program::Program;
use super::record::{Command, Recording};
use super::streamed::{rate, stream};
use super::traits::Schedule;
use super::uses::uses_of_steps;
use super::weights::Weights;
use crate::backend::streaming::bytes_of_all;
use crate::backend::{
    self, Backend, Executable, Held, Precision, Result, Rounding, TooLittle, View, WeightStore,
};
use crate::graph::{Graph, ParameterSource, Plan, Target};

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

    fn rounding(&self) -> Option<Rounding> {
        Some(Rounding { factors: self.rounds_to_f16(), activations: self.activations().is_ok() })
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
        Ok(bytes_of_all(uses_of_steps(self, graph, plan)?))
    }

    fn held(
        &self,
        graph: &Graph,
        plan: &Plan,
        within: u64,
    ) -> Result<std::result::Result<Held, TooLittle>> {
        Ok(stream(self, graph, plan, within)?.map(|stream| stream.held))
    }

    fn retain(&self, wanted: &dyn Fn(&str) -> bool) {
        self.keep(wanted);
        self.host.keep(wanted);
    }

    fn rest(&self) {
        self.keep(&|_| false);
    }

    fn compile(&self, graph: &Graph, plan: &Plan) -> Result<Box<dyn Executable>> {
        Ok(Box::new(Program::new(self, graph, plan)?))
    }

    fn compile_within(
        &self,
        graph: &Graph,
        plan: &Plan,
        within: u64,
    ) -> Result<Box<dyn Executable>> {
        Ok(Box::new(Program::within(self, graph, plan, within)?))
    }

    fn rate(&self, _graph: &Graph, _plan: &Plan) -> Result<Option<f64>> {
        Ok(rate(&self.gpu)?)
    }
}
