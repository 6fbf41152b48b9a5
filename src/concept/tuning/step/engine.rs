//! What computes a step: a device, or plain Rust.

use std::collections::HashMap;
use std::sync::Arc;

use crate::gpu::{Cost, Gpu, Schedule};
use crate::graph::{Array, Graph, Origin, ParameterSource, Plan, Precision, Program, Traits, Weights};

use super::build::Built;
use super::culprit::{Culprit, Search};
use super::error::Result;

pub(super) enum Engine {
    /// The operations' plain-Rust twins.
    Host {
        values: HashMap<String, Array>,
        parameters: Arc<dyn ParameterSource + Send>,
    },
    Device {
        plan: Box<Plan>,
        weights: Weights,
        program: Option<Box<Program>>,
    },
}

impl Engine {
    pub fn on_host(parameters: Arc<dyn ParameterSource + Send>) -> Engine {
        Engine::Host { values: HashMap::new(), parameters }
    }

    pub fn on_device(gpu: &Arc<Gpu>, parameters: Arc<dyn ParameterSource + Send>, precision: Precision, built: &Built) -> Engine {
        let plan = Plan::new(&built.graph, &[built.report], &Program::traits(gpu));
        Engine::Device { plan: Box::new(plan), weights: Weights::new(gpu, parameters, precision), program: None }
    }

    /// Bytes of weights, activations, and what is kept between steps.
    pub fn planned_bytes(&self, built: &Built) -> Result<PlannedBytes> {
        let graph = &built.graph;
        let of = |wanted: &dyn Fn(&Origin) -> bool| -> u64 {
            let nodes = graph.nodes().iter().filter(|node| wanted(&node.origin));
            nodes.map(|node| node.shape.elements() as u64 * 4).sum()
        };
        let state = of(&|origin| matches!(origin, Origin::Input { .. }));
        Ok(match self {
            Engine::Host { .. } => {
                let schedule = Schedule::registers();
                let traits =
                    Traits { max_binding: u64::MAX, max_buffer: u64::MAX, alignment: 4, workgroup_memory: 16 << 10, schedule };
                let activations = Plan::new(graph, &[built.report], &traits).live_bytes();
                PlannedBytes { weights: of(&|origin| matches!(origin, Origin::Parameter { .. })), activations, state }
            }
            Engine::Device { plan, weights, .. } => {
                PlannedBytes { weights: weights.planned_bytes(graph, plan)?, activations: plan.activation_bytes(), state }
            }
        })
    }

    /// Gets ready to run: uploads the weights.
    pub fn prepare(&mut self, graph: &Graph) -> Result<()> {
        if let Engine::Device { plan, weights, program } = self
            && program.is_none()
        {
            *program = Some(Box::new(Program::from_plan(weights, graph, plan)?));
        }
        Ok(())
    }

    pub fn write(&mut self, name: &str, array: Array) -> Result<()> {
        match self {
            Engine::Host { values, .. } => {
                values.insert(name.into(), array);
            }
            Engine::Device { program: Some(program), .. } => program.write(name, &array)?,
            Engine::Device { program: None, .. } => {}
        }
        Ok(())
    }

    /// The value of a state, none before anything was written.
    pub fn read(&self, name: &str) -> Result<Option<Array>> {
        Ok(match self {
            Engine::Host { values, .. } => values.get(name).cloned(),
            Engine::Device { program, .. } => program.as_ref().map(|program| program.state(name)).transpose()?,
        })
    }

    /// Runs once: the report's numbers.
    pub fn run(&mut self, built: &Built) -> Result<Vec<f32>> {
        let graph = &built.graph;
        match self {
            Engine::Host { values, parameters } => {
                let mut wanted = vec![built.report];
                wanted.extend(graph.assignments().iter().map(|&(_, from)| from));
                let mut found = graph.evaluate(&wanted, values, &**parameters)?.into_iter();
                let report = found.next().map(|array| array.values().to_vec());
                for (&(input, _), array) in graph.assignments().iter().zip(found) {
                    if let Origin::Input { name } = &graph.node(input).origin {
                        values.insert(name.clone(), array);
                    }
                }
                Ok(report.unwrap_or_default())
            }
            Engine::Device { program: Some(program), .. } => {
                program.run();
                Ok(program.output(0)?.values().to_vec())
            }
            Engine::Device { program: None, .. } => Ok(Vec::new()),
        }
    }

    pub fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        Ok(match self {
            Engine::Device { program: Some(program), .. } => program.profile(clock)?,
            _ => HashMap::new(),
        })
    }

    /// Runs again, operation by operation, up to the first one that makes a number that is not finite.
    pub fn find_culprit(&self, built: &Built) -> Result<Option<Culprit>> {
        let mut search = Search::new();
        let mut look = |operation: &str, layer: &str, values: &[f32]| search.look(operation, layer, values);
        match self {
            Engine::Host { values, parameters } => built.graph.trace(&[built.report], values, &**parameters, &mut look)?,
            Engine::Device { program: Some(program), .. } => program.trace(&mut look)?,
            Engine::Device { program: None, .. } => {}
        }
        Ok(search.found)
    }
}

/// What a step takes of a device's memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlannedBytes {
    pub weights: u64,
    pub activations: u64,
    /// Inputs, and what is learnt with its moments.
    pub state: u64,
}

impl PlannedBytes {
    pub fn total(&self) -> u64 {
        self.weights + self.activations + self.state
    }
}
