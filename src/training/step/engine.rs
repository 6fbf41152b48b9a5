//! What computes a step: a plan on a device, and where its numbers stand.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::{Cost, Device, Held, Precision, Program, Weights};
use crate::graph::{Array, Graph, Origin, ParameterSource, Plan, Tensor};

use super::build::Built;
use super::culprit::{Culprit, Search};
use super::error::Result;

pub(super) struct Engine {
    plan: Plan,
    weights: Weights,
    /// What the weights may have of the device; none: as much as they are.
    within: Option<u64>,
    program: Option<Program>,
}

impl Engine {
    pub fn new(
        device: &Device,
        parameters: Arc<dyn ParameterSource + Send>,
        precision: Precision,
        built: &Built,
    ) -> Engine {
        let plan = Plan::new(&built.graph, &[built.report], device.target());
        let weights = Weights::new(device, parameters, precision);
        Engine { plan, weights, within: None, program: None }
    }

    /// Lets all of it stay within so many bytes of the device, as far as weights can come and go.
    pub fn keep_within(&mut self, memory: u64, built: &Built) -> Result<()> {
        let PlannedBytes { activations, state, .. } = self.planned_bytes(built)?;
        self.within = Some(memory.saturating_sub(activations + state));
        Ok(())
    }

    /// Bytes of weights, activations, and what is kept between steps.
    pub fn planned_bytes(&self, built: &Built) -> Result<PlannedBytes> {
        let graph = &built.graph;
        let inputs =
            graph.nodes().iter().filter(|node| matches!(node.origin, Origin::Input { .. }));
        let all = self.weights.planned_bytes(graph, &self.plan)?;
        let held = match self.within {
            Some(within) if within < all => Some(self.weights.held(graph, &self.plan, within)?),
            _ => None,
        };
        let weights = match &held {
            None => all,
            Some(Ok(held)) => held.bytes(),
            Some(Err(few)) => few.least,
        };
        Ok(PlannedBytes {
            weights,
            streaming: held.and_then(std::result::Result::ok),
            activations: self.plan.activation_bytes(),
            state: inputs.map(|node| node.shape.elements() as u64 * 4).sum(),
        })
    }

    /// Gets ready to run: uploads the weights.
    pub fn prepare(&mut self, graph: &Graph) -> Result<()> {
        if self.program.is_none() {
            self.program = Some(match self.within {
                None => Program::from_plan(&self.weights, graph, &self.plan)?,
                Some(within) => Program::within(&self.weights, graph, &self.plan, within)?,
            });
        }
        Ok(())
    }

    /// Gives up all that is on the device.
    pub fn rest(&mut self) {
        self.program = None;
        self.weights.rest();
    }

    /// Bytes a second that weights come in, measured.
    pub fn rate(&self, graph: &Graph) -> Result<Option<f64>> {
        Ok(self.weights.rate(graph, &self.plan)?)
    }

    pub fn write(&mut self, input: Tensor, array: &Array) -> Result<()> {
        match &self.program {
            Some(program) => Ok(program.write(input, array)?),
            None => Ok(()),
        }
    }

    /// Whether the program reads an input.
    pub fn has_input(&self, input: Tensor) -> bool {
        self.program.as_ref().is_some_and(|program| program.has_input(input))
    }

    /// The value of a state, none before anything was written.
    pub fn read(&self, input: Tensor) -> Result<Option<Array>> {
        Ok(self.program.as_ref().map(|program| program.state(input)).transpose()?)
    }

    /// Runs once: the report's numbers.
    pub fn run(&mut self) -> Result<Vec<f32>> {
        let Some(program) = &self.program else { return Ok(Vec::new()) };
        program.run();
        Ok(program.output(0)?.values().to_vec())
    }

    pub fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        Ok(self
            .program
            .as_ref()
            .map(|program| program.profile(clock))
            .transpose()?
            .unwrap_or_default())
    }

    /// Runs again, operation by operation, up to the first one that makes a number that is not
    /// finite.
    pub fn find_culprit(&self) -> Result<Option<Culprit>> {
        let mut search = Search::new();
        let mut look =
            |operation: &str, layer: &str, values: &[f32]| search.look(operation, layer, values);
        if let Some(program) = &self.program {
            program.trace(&mut look)?;
        }
        Ok(search.found)
    }
}

/// What a step takes of a device's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlannedBytes {
    /// All that programs read, packed; where not all of it stays, what stays and the places of what
    /// comes and goes.
    pub weights: u64,
    /// How weights come and go, if they do.
    pub streaming: Option<Held>,
    /// What lies between weights and results, at its greatest.
    pub activations: u64,
    /// Inputs, and what is trained with its moments.
    pub state: u64,
}

impl PlannedBytes {
    /// All three.
    pub fn total(&self) -> u64 {
        self.weights + self.activations + self.state
    }
}
