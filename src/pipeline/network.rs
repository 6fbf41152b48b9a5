//! One network of the model on the device: configuration, weights, and programs made of them.

use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::Device;
use crate::backend::{Precision, Program, Weights};
use crate::checkpoint::Component;
use crate::concept::AppliedSet;
use crate::concept::source::WithUpdates;
use crate::graph::{Graph, Origin, ParameterSource, Plan, Tensor};
use crate::sd::source::ComponentSource;

use super::error::{Error, Result};

pub(super) struct Network<C> {
    pub config: C,
    pub weights: Weights,
    /// What `weights` reads: the model, and the low-rank updates in use.
    pub updates: Arc<WithUpdates>,
    path: PathBuf,
}

impl<C> Network<C> {
    pub fn new(gpu: &Device, component: &Component, config: C, precision: Precision) -> Self {
        Self::from_source(
            gpu,
            component,
            Arc::new(ComponentSource(component.clone())),
            config,
            precision,
        )
    }

    /// A network whose weights are `component`'s, but as `source` has them.
    pub fn from_source(
        gpu: &Device,
        component: &Component,
        source: Arc<dyn ParameterSource + Send>,
        config: C,
        precision: Precision,
    ) -> Self {
        // Cooperative matrices round all that they multiply to f16, and are much faster than what
        // takes f32.
        let sums_in_f32 = !gpu.rounds_to_f16();
        let updates = Arc::new(WithUpdates::new(source).with_sums_in_f32(sums_in_f32));
        let weights = Weights::new(gpu, updates.clone(), precision);
        Network { config, weights, updates, path: component.path().to_path_buf() }
    }

    /// Adds these updates to the weights, instead of those that were added before. Returns whether
    /// any weight is another now: programs made before still have those of before.
    pub fn merge(&self, sets: &[AppliedSet]) -> bool {
        let changed = self.updates.merge(sets);
        self.weights.retain(|name| {
            name.strip_suffix(".weight").is_none_or(|layer| !changed.contains(layer))
        });
        !changed.is_empty()
    }

    /// Names this network's files in an error.
    pub fn blame<T>(&self, result: Result<T, impl Into<crate::backend::Error>>) -> Result<T> {
        result.map_err(|source| Error::Network { path: self.path.clone(), source: source.into() })
    }

    pub fn unsupported(&self, what: impl Into<String>) -> Error {
        Error::Unsupported { path: self.path.clone(), what: what.into() }
    }

    /// Builds a graph and plans it.
    pub fn plan(
        &self,
        build: impl FnOnce(&C, &mut Graph) -> crate::graph::Result<Vec<Tensor>>,
    ) -> Result<Planned> {
        let mut graph = Graph::new();
        let outputs = self.blame(build(&self.config, &mut graph))?;
        let plan = Plan::new(&graph, &outputs, self.weights.device().target());
        Ok(Planned { graph, plan })
    }

    /// Bytes of the weights that `planned` uses. Also checks that they are there, in the right
    /// shapes.
    pub fn weight_bytes(&self, planned: &Planned) -> Result<u64> {
        self.blame(self.weights.planned_bytes(&planned.graph, &planned.plan))
    }

    /// Uploads what is missing of the weights, and records.
    pub fn program(&self, planned: &Planned) -> Result<Program> {
        self.blame(Program::from_plan(&self.weights, &planned.graph, &planned.plan))
    }
}

/// A graph and its plan.
pub(super) struct Planned {
    pub graph: Graph,
    pub plan: Plan,
}

impl Planned {
    /// Bytes of activations and inputs.
    pub fn bytes(&self) -> u64 {
        let inputs =
            self.graph.nodes().iter().filter(|node| matches!(node.origin, Origin::Input { .. }));
        self.plan.activation_bytes()
            + inputs.map(|node| node.shape.elements() as u64 * 4).sum::<u64>()
    }

    /// The largest activation: its bytes and its layer.
    pub fn largest(&self) -> (u64, &str) {
        let bytes = |step: &crate::graph::Step| {
            let elements = |t: &Tensor| self.graph.shape(*t).elements();
            let tensors = step.inputs.iter().filter(|t| !self.is_weight(**t)).chain([&step.output]);
            tensors.map(elements).chain(step.scratch).max().unwrap_or(0) as u64 * 4
        };
        let sizes = self.plan.steps.iter().map(|step| (bytes(step), &*step.layer));
        sizes.max_by_key(|(bytes, _)| *bytes).unwrap_or((0, ""))
    }

    fn is_weight(&self, tensor: Tensor) -> bool {
        matches!(self.graph.node(self.plan.root(tensor)).origin, Origin::Parameter { .. })
    }

    /// Every tensor can be bound.
    pub fn fits(&self) -> bool {
        self.largest().0 <= self.plan.limits().max_binding
    }

    /// An error that names the tensor that does not fit, and `hint`s at what would.
    pub fn check(&self, gpu: &Device, what: &str, hint: impl FnOnce() -> String) -> Result<()> {
        let (bytes, layer) = self.largest();
        if self.fits() {
            return Ok(());
        }
        Err(Error::TooLarge {
            what: what.into(),
            layer: layer.into(),
            needed: bytes.div_ceil(1 << 20),
            allowed: self.plan.limits().max_binding >> 20,
            adapter: gpu.name().into(),
            hint: hint(),
        })
    }
}
