//! What computes a step: a plan on a device, and where its numbers stand.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backend::{Cost, Device, Precision, Program, Weights};
use crate::graph::{Array, Graph, Origin, ParameterSource, Plan, Tensor};

use super::build::Built;
use super::culprit::{Culprit, Search};
use super::error::Result;

pub(super) struct Engine {
    plan: Plan,
    weights: Weights,
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
        Engine { plan, weights: Weights::new(device, parameters, precision), program: None }
    }

    /// Bytes of weights, activations, and what is kept between steps.
    pub fn planned_bytes(&self, built: &Built) -> Result<PlannedBytes> {
        let graph = &built.graph;
        let inputs =
            graph.nodes().iter().filter(|node| matches!(node.origin, Origin::Input { .. }));
        Ok(PlannedBytes {
            weights: self.weights.planned_bytes(graph, &self.plan)?,
            activations: self.plan.activation_bytes(),
            state: inputs.map(|node| node.shape.elements() as u64 * 4).sum(),
        })
    }

    /// Gets ready to run: uploads the weights.
    pub fn prepare(&mut self, graph: &Graph) -> Result<()> {
        if self.program.is_none() {
            self.program = Some(Program::from_plan(&self.weights, graph, &self.plan)?);
        }
        Ok(())
    }

    pub fn write(&mut self, input: Tensor, array: &Array) -> Result<()> {
        match &self.program {
            Some(program) => Ok(program.write(input, array)?),
            None => Ok(()),
        }
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
    /// All that programs read, packed.
    pub weights: u64,
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
