//! One step of tuning as one plan: both networks forward, their gradients, and the optimiser
//! (Mix-of-Show, arXiv 2305.18292, section 3.2).

mod build;
mod config;
mod culprit;
mod distillation;
mod dropout;
mod engine;
mod error;
mod feed;
mod layers;
mod parameter_group;
mod regularisation;
mod state;
mod texts;

use std::collections::HashMap;

use crate::backend::reference::Reference;
use crate::backend::{Cost, Device, Rounding};
use crate::graph::{Array, Graph, Tensor};

pub use config::{
    AdamW, AttentionLoss, Batch, Method, Models, Network, PriorLoss, PriorTarget, Rates,
    SecondText, State, StepConfig, StepReport, TextLayers, TrainedLayer, UNetLayers,
};
pub use distillation::Lesson;
pub use engine::PlannedBytes;
pub use error::{Error, Result};
pub use parameter_group::{network_prefix, rows_name};

use build::{Built, REPORT};
use engine::Engine;
use feed::{Feed, Position};

/// A tuning step, planned for one shape, with the state that it moves.
pub struct TrainingStep {
    models: Models,
    config: StepConfig,
    built: Built,
    engine: Engine,
    feed: Feed,
    step: u64,
    accumulated: usize,
    embeddings_stopped: bool,
    /// Mean norm of the concept words' rows now.
    norm: f32,
}

/// Floating-point operations of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepFlops {
    /// Both networks forward, to the loss.
    pub forward: u64,
    /// The whole step.
    pub step: u64,
}

impl TrainingStep {
    /// Builds and plans a step for a device. Weights are uploaded by [`TrainingStep::restore`].
    ///
    /// # Errors
    /// A configuration that makes no step, or models that do not fit each other.
    pub fn new(models: &Models, config: &StepConfig, device: &Device) -> Result<TrainingStep> {
        let built = build::build(models, config, device.rounds_gradients().is_ok())?;
        let engine = Engine::new(device, models.parameters.clone(), config.precision, &built);
        Ok(TrainingStep::with(models, config, built, engine))
    }

    /// What it rounds to f16 on `device` besides weights; none where nothing is ever.
    pub fn rounding(&self, device: &Device) -> Option<Rounding> {
        let graph = &self.built.graph;
        device.rounding().map(|rounding| Rounding {
            factors: rounding.factors && !graph.is_precise(),
            activations: rounding.activations && graph.rounds_activations(),
        })
    }

    /// Lets the step stay within so many bytes of the device: weights come anew in each run where
    /// they do not fit. What is trained is the same, bit for bit. Before
    /// [`TrainingStep::restore`]; whether it is enough, [`TrainingStep::planned_bytes`] tells.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn keep_within(&mut self, memory: u64) -> Result<()> {
        self.engine.keep_within(memory, &self.built)
    }

    /// Gives up what it has on the device; [`TrainingStep::restore`] brings it back, with the state
    /// that was asked for before.
    pub fn rest(&mut self) {
        self.engine.rest();
    }

    /// Bytes of weights that come in a second, measured; none where that takes no time.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn rate(&self) -> Result<Option<f64>> {
        self.engine.rate(&self.built.graph)
    }

    /// The same step in plain Rust: slow, the measure for the device.
    ///
    /// # Errors
    /// As those of [`TrainingStep::new`].
    pub fn on_host(models: &Models, config: &StepConfig) -> Result<TrainingStep> {
        TrainingStep::new(models, config, &Reference::new().into())
    }

    fn with(models: &Models, config: &StepConfig, built: Built, engine: Engine) -> TrainingStep {
        TrainingStep {
            models: models.clone(),
            config: config.clone(),
            built,
            engine,
            feed: Feed::default(),
            step: 0,
            accumulated: 0,
            embeddings_stopped: false,
            norm: 0.0,
        }
    }

    /// The low-rank updates that are trained.
    pub fn layers(&self) -> &[TrainedLayer] {
        &self.built.layers
    }

    /// What decided the plan.
    pub fn config(&self) -> &StepConfig {
        &self.config
    }

    /// What the step takes of the device's memory.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn planned_bytes(&self) -> Result<PlannedBytes> {
        self.engine.planned_bytes(&self.built)
    }

    /// The graph of a step, and the tensor that a run is read by: for plans, profiles and tests.
    pub fn graph(&self) -> (&Graph, Tensor) {
        (&self.built.graph, self.built.report)
    }

    /// Floating-point operations of a step, and of what it would be made of.
    pub fn flops(&self) -> StepFlops {
        let graph = &self.built.graph;
        let mut all = vec![self.built.report];
        all.extend(graph.assignments().iter().map(|&(_, from)| from));
        StepFlops { forward: graph.flops(&[self.built.loss]), step: graph.flops(&all) }
    }

    /// Takes the last batch again, command by command, and sums costs by operation; nothing on the
    /// host. `clock` gives seconds.
    ///
    /// # Errors
    /// A device that fails.
    pub fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        self.engine.profile(clock)
    }

    /// Takes one batch. At the last of an accumulation, everything that is trained moves.
    ///
    /// # Errors
    /// A batch of other shapes than was planned for. [`Error::NotFinite`] where a number came out
    /// as infinite or none: then nothing has moved, and the batches of this accumulation are
    /// forgotten.
    pub fn run(&mut self, batch: &Batch) -> Result<StepReport> {
        let at = Position {
            update: self.step + 1,
            accumulated: self.accumulated,
            embeddings_stopped: self.embeddings_stopped,
        };
        let inputs = self.feed.inputs(&self.models, &self.config, &self.built, batch, &at)?;
        self.take(inputs)
    }

    /// The first layer that is trained.
    fn first_layer(&self) -> String {
        self.built
            .layers
            .first()
            .map_or("text_model.embeddings.token_embedding".into(), |layer| layer.name.clone())
    }

    /// Runs with these inputs.
    fn take(&mut self, inputs: Vec<(Tensor, Array)>) -> Result<StepReport> {
        for (input, array) in &inputs {
            self.engine.write(*input, array)?;
        }
        let report = self.engine.run()?;
        let [loss, regularisation, guard] =
            <[f32; REPORT]>::try_from(report).map_err(|_| Error::NoState)?;
        if !guard.is_finite() {
            let culprit = self.engine.find_culprit()?;
            self.forget_sums()?;
            // Where no value of the second look is wrong, the first one's was a whim of the device.
            let unknown =
                || ("the device, and not again when it was looked for,".into(), self.first_layer());
            let (operation, layer) = culprit.map_or_else(unknown, |c| (c.operation, c.layer));
            return Err(Error::NotFinite { step: self.step + 1, loss, operation, layer });
        }
        self.accumulated += 1;
        let updated = self.accumulated == self.config.accumulate;
        if updated {
            self.accumulated = 0;
            self.step += 1;
            if !self.embeddings_stopped {
                self.measure_norm()?;
            }
        }
        Ok(StepReport {
            step: self.step,
            updated,
            loss,
            regularisation,
            embedding_norm: self.norm,
            embeddings_stopped: self.embeddings_stopped,
        })
    }
}
