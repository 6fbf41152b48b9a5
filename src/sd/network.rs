//! One network of a model on a device: configuration, weights, and programs made of them.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use crate::backend::{Device, Held, Precision, Program, TooLittle, Weights};
use crate::checkpoint::Component;
use crate::concept::AppliedSet;
use crate::graph::{Graph, Origin, ParameterSource, Plan, Tensor};

use super::error::{Error, Result};
use super::model::Part;
use super::overlay::Overlay;
use super::source::ComponentSource;

/// A network whose weights go to the device when they are first used.
pub(crate) struct LoadedNetwork<C> {
    pub config: C,
    pub weights: Weights,
    /// What `weights` reads: the model, and the updates in use.
    pub overlay: Arc<Overlay>,
    /// Bytes of the device that a program may take, its weights among them; none: what it needs.
    pub budget: Option<u64>,
    path: PathBuf,
}

impl<C: Clone> LoadedNetwork<C> {
    pub fn new(gpu: &Device, part: &Part<C>, precision: Precision) -> Self {
        let source = Arc::new(ComponentSource(part.component.clone()));
        Self::from_source(gpu, &part.component, source, part.config.clone(), precision)
    }
}

impl<C> LoadedNetwork<C> {
    /// A network whose weights are `component`'s, but as `source` has them.
    pub fn from_source(
        gpu: &Device,
        component: &Component,
        source: Arc<dyn ParameterSource + Send>,
        config: C,
        precision: Precision,
    ) -> Self {
        Self::from_overlay(gpu, component, Overlay::new(source), config, precision)
    }

    /// A network whose weights are `component`'s with others in place of some or beside them.
    pub fn from_overlay(
        gpu: &Device,
        component: &Component,
        overlay: Overlay,
        config: C,
        precision: Precision,
    ) -> Self {
        // Cooperative matrices round all that they multiply to f16, and are much faster than what
        // takes f32.
        let overlay = Arc::new(overlay.with_sums_in_f32(!gpu.rounds_to_f16()));
        let weights = Weights::new(gpu, overlay.clone(), precision);
        LoadedNetwork {
            config,
            weights,
            overlay,
            budget: None,
            path: component.path().to_path_buf(),
        }
    }

    /// Adds these updates to the weights, instead of those that were added before. Returns whether
    /// any weight is another now: programs made before still have those of before.
    pub fn merge(&self, sets: &[AppliedSet]) -> bool {
        let changed = self.overlay.merge(sets);
        self.weights.retain(|name| !changed.contains(name));
        !changed.is_empty()
    }

    /// Names this network's files in an error.
    pub fn blame<T>(&self, result: Result<T, impl Into<crate::backend::Error>>) -> Result<T> {
        result.map_err(|source| Error::Network { path: self.path.clone(), source: source.into() })
    }

    /// Builds a graph and plans it. `build` tells what the graph takes, in whatever form suits it,
    /// and its outputs.
    pub fn plan<I>(
        &self,
        build: impl FnOnce(&C, &mut Graph) -> crate::graph::Result<(I, Vec<Tensor>)>,
    ) -> Result<PlannedGraph<I>> {
        let mut graph = Graph::new();
        let (inputs, outputs) = self.blame(build(&self.config, &mut graph))?;
        self.weights.let_round(&mut graph);
        let plan = Plan::new(&graph, &outputs, self.weights.device().target());
        Ok(PlannedGraph { graph, plan, inputs })
    }

    /// Bytes of the weights that `planned` uses. Also checks that they are there, in the right
    /// shapes.
    pub fn weight_bytes<I>(&self, planned: &PlannedGraph<I>) -> Result<u64> {
        self.blame(self.weights.planned_bytes(&planned.graph, &planned.plan))
    }

    /// Uploads what is missing of the weights, and compiles.
    pub fn program<I: Clone>(&self, planned: &PlannedGraph<I>) -> Result<Ready<I>> {
        self.program_within(planned, self.budget.map(|all| all.saturating_sub(planned.bytes())))
    }

    /// [`LoadedNetwork::program`] with weights in no more than so many bytes of the device.
    pub fn program_within<I: Clone>(
        &self,
        planned: &PlannedGraph<I>,
        within: Option<u64>,
    ) -> Result<Ready<I>> {
        let PlannedGraph { graph, plan, inputs } = planned;
        let program = match within {
            None => Program::from_plan(&self.weights, graph, plan),
            Some(within) => Program::within(&self.weights, graph, plan, within),
        };
        Ok(Ready { program: self.blame(program)?, inputs: inputs.clone() })
    }

    /// How the weights that `planned` uses are held in no more than `within` bytes of the device.
    pub fn held<I>(
        &self,
        planned: &PlannedGraph<I>,
        within: u64,
    ) -> Result<std::result::Result<Held, TooLittle>> {
        self.blame(self.weights.held(&planned.graph, &planned.plan, within))
    }

    /// Bytes a second that weights of `planned` can be brought to the device in, measured.
    pub fn rate<I>(&self, planned: &PlannedGraph<I>) -> Result<Option<f64>> {
        self.blame(self.weights.rate(&planned.graph, &planned.plan))
    }
}

/// A graph, its plan, and what it takes.
pub(crate) struct PlannedGraph<I = ()> {
    pub graph: Graph,
    pub plan: Plan,
    pub inputs: I,
}

/// A program and what it takes: the handles that its inputs are written by.
pub(crate) struct Ready<I = ()> {
    program: Program,
    pub inputs: I,
}

impl<I> Deref for Ready<I> {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.program
    }
}

impl<I> PlannedGraph<I> {
    /// Bytes of activations and inputs.
    pub fn bytes(&self) -> u64 {
        self.plan.activation_bytes() + self.input_bytes(|_| true)
    }

    /// Bytes of the inputs that count.
    pub fn input_bytes(&self, counts: impl Fn(Tensor) -> bool) -> u64 {
        let is_input =
            |tensor: &Tensor| matches!(self.graph.node(*tensor).origin, Origin::Input { .. });
        let inputs = self.graph.tensors().filter(|tensor| is_input(tensor) && counts(*tensor));
        inputs.map(|tensor| self.plan.bytes(&self.graph, tensor)).sum()
    }

    /// The largest activation: its bytes and its layer.
    fn largest(&self) -> (u64, &str) {
        let bytes = |step: &crate::graph::PlannedStep| {
            let bytes = |t: &Tensor| self.plan.bytes(&self.graph, *t);
            let tensors = step.inputs.iter().filter(|t| !self.is_weight(**t)).chain([&step.output]);
            let scratch = step.scratch.map(|elements| elements as u64 * 4);
            tensors.map(bytes).chain(scratch).max().unwrap_or(0)
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
