//! The one thread that owns the device and the models.
mod fusing;
mod generating;
mod teaching;

use std::sync::Arc;

use crate::backend::{Device, Precision, ReplacedKernel};
use crate::checkpoint::Checkpoint;
use crate::pipeline::Pipeline;

use super::concepts::Concepts;
use super::job::{Job, Work};
use super::problem::Problem;
use super::queue::Works;
use super::shared::Shared;
use super::shelf::Listed;

/// A model on the device.
pub struct Loaded {
    pub name: String,
    pub checkpoint: Checkpoint,
    pub pipeline: Pipeline,
    /// Of its weights, once it is known.
    pub hash: Option<String>,
}

/// What does the jobs.
pub struct Worker {
    pub device: Device,
    pub shared: Arc<Shared>,
    pub precision: Precision,
    pub concepts: Concepts,
    /// Those that were used last are at the end.
    loaded: Vec<Loaded>,
}

impl Worker {
    pub fn new(device: Device, shared: Arc<Shared>, precision: Precision) -> Worker {
        let concepts = Concepts::default();
        Worker { device, shared, precision, concepts, loaded: Vec::new() }
    }

    /// Takes a model out of those that are loaded, or loads it. Where there are too many, the one
    /// that was used the longest ago goes.
    pub fn take(&mut self, model: &Listed, job: &Job) -> Result<Loaded, Problem> {
        if let Some(place) = self.loaded.iter().position(|loaded| loaded.name == model.name) {
            return Ok(self.loaded.remove(place));
        }
        let most = self.shared.limits.models.max(1);
        while self.loaded.len() >= most {
            drop(self.loaded.remove(0));
        }
        let checkpoint = self.open(model, job)?;
        let pipeline = Pipeline::load(&self.device, &checkpoint, self.precision)?;
        Ok(Loaded { name: model.name.clone(), checkpoint, pipeline, hash: None })
    }

    /// Opens a model's files.
    pub fn open(&self, model: &Listed, job: &Job) -> Result<Checkpoint, Problem> {
        job.change(|status| (status.stage, status.done, status.of) = ("load", 0, 1));
        Ok(match &model.path {
            Some(path) => Checkpoint::open(path)?,
            None => Checkpoint::open_named(&model.name, None)?,
        })
    }

    /// Gives back the memory of all models that are loaded.
    pub fn forget(&mut self) {
        self.loaded.clear();
    }

    /// Keeps a model for the next job.
    pub fn keep(&mut self, loaded: Loaded) {
        self.loaded.push(loaded);
    }
}

/// Kernels that are not this program's own, where the device runs any of ours at all.
#[cfg(feature = "wgpu")]
pub fn replaced_kernels(device: &Device) -> Result<Vec<ReplacedKernel>, Problem> {
    use crate::backend::wgpu::{Gpu, replaced_kernels};

    match device.backend::<Gpu>() {
        Some(_) => match replaced_kernels() {
            Ok(kernels) => Ok(kernels.to_vec()),
            Err(error) => Err(Problem::own(error.to_string())),
        },
        None => Ok(Vec::new()),
    }
}

/// Kernels that are not this program's own.
#[cfg(not(feature = "wgpu"))]
pub fn replaced_kernels(_: &Device) -> Result<Vec<ReplacedKernel>, Problem> {
    Ok(Vec::new())
}

impl Works for Worker {
    fn work(&mut self, job: &Job, work: Work) -> Result<(), Problem> {
        match work {
            Work::Generate(order) => generating::generate(self, job, *order),
            Work::Teach(lesson) => teaching::teach(self, job, &lesson),
            Work::Fuse(fusion) => fusing::fuse(self, job, *fusion),
        }
    }

    fn recover(&mut self) {
        self.forget();
        self.concepts = Concepts::default();
    }
}
