//! Fusing concepts into one model.

use std::path::PathBuf;

use mixofshow::checkpoint::SHIPPED;
use mixofshow::concept::dialects;
use mixofshow::fusion::solve::{Exact, Lbfgs, Solver};
use mixofshow::fusion::{self, ConceptToFuse, Distillation, Order, Settings, markdown};
use mixofshow::{Checkpoint, Pipeline};
use pyo3::prelude::*;

use crate::concept::Concept;
use crate::device;
use crate::errors::{OrRaise, argument};
use crate::request::models;
use crate::watch::Watcher;

/// What is to be fused, and how; what is none is as in `mos fuse`.
#[derive(FromPyObject)]
pub struct Wanted {
    /// Each with the prompt that names it where it has no words.
    concepts: Vec<(Py<Concept>, Option<String>)>,
    output: PathBuf,
    model: Option<String>,
    device: Option<String>,
    precision: Option<String>,
    replace: bool,
    statistics: Option<PathBuf>,
    solver: Option<String>,
    steps: Option<usize>,
    guidance: Option<f32>,
    size: Option<(usize, usize)>,
    samples: Option<u64>,
    seed: Option<u64>,
    prompts: Option<Vec<String>>,
    keep: Option<Vec<String>>,
    distillation: Option<u64>,
    rename: bool,
    progress: Option<Py<PyAny>>,
}

/// The folder, the report as JSON and as Markdown, warnings.
type FusedModel = (PathBuf, String, String, Vec<String>);

/// Fuses, and writes the model.
#[pyfunction]
pub fn fuse(py: Python<'_>, wanted: Wanted) -> PyResult<FusedModel> {
    let solver = match wanted.solver.as_deref() {
        None | Some("exact") => Solver::Exact(Exact::default()),
        // 0: as published, stage by stage.
        Some("lbfgs") => Solver::Lbfgs(Lbfgs { iterations: 0 }),
        Some("average") => Solver::Average,
        Some(other) => {
            return Err(argument(format!("solver is `{other}`: expected exact, lbfgs or average")));
        }
    };
    let mut settings = Settings::of(solver);
    settings.steps = wanted.steps.unwrap_or(settings.steps);
    settings.guidance = wanted.guidance.unwrap_or(settings.guidance);
    settings.seeds = wanted.samples.unwrap_or(settings.seeds);
    settings.seed = wanted.seed.unwrap_or(settings.seed);
    settings.precision = device::precision(wanted.precision.as_deref())?;
    settings.rename = wanted.rename;
    if let Some(templates) = wanted.prompts {
        if let Some(wrong) = templates.iter().find(|line| !line.contains("{}")) {
            let words = format!("prompts: \"{wrong}\" has no {{}} for the concept's words");
            return Err(argument(words));
        }
        settings.prompts.clone_from(&templates);
        settings.sampled = templates;
    }
    settings.keep = wanted.keep.unwrap_or(settings.keep);
    settings.distillation = match wanted.distillation {
        None => settings.distillation,
        Some(0) => Distillation::NONE,
        Some(pictures) => Distillation { pictures, ..Distillation::default() },
    };
    let named: Vec<(PathBuf, [f32; 2], Option<String>)> = wanted
        .concepts
        .iter()
        .map(|(concept, prompt)| {
            let concept = concept.get();
            (concept.path().clone(), concept.scales(), prompt.clone())
        })
        .collect();
    let (model, output) = (wanted.model.unwrap_or_else(|| SHIPPED.into()), wanted.output);
    let (device, size) = (wanted.device, wanted.size);
    let (replace, statistics) = (wanted.replace, wanted.statistics);
    let mut watcher = Watcher::new(wanted.progress);
    let mut told = Vec::new();
    let done = py.detach(|| {
        let mut concepts = Vec::with_capacity(named.len());
        for (path, [unet, text], prompt) in named {
            let (concept, _) = dialects::read(&path).or_raise()?;
            concepts.push(ConceptToFuse { concept, path, unet, text, prompt });
        }
        let checkpoint = Checkpoint::open_named(&model, models().as_deref()).or_raise()?;
        let gpu = device::open(device.as_deref())?;
        if let Some((width, height)) = size {
            let pipeline = Pipeline::load(&gpu, &checkpoint, settings.precision).or_raise()?;
            let factor = pipeline.factor();
            if width % factor != 0 || height % factor != 0 || width == 0 || height == 0 {
                let words = format!("size is {width}x{height}: expected multiples of {factor}");
                return Err(argument(words));
            }
            settings.size = Some([height / factor, width / factor]);
        }
        let order = Order { replace, statistics, ..Order::new(concepts, output.clone()) };
        let fused = fusion::fuse(&gpu, &checkpoint, order, &settings, &mut |at| {
            // A stage is worked through concept by concept.
            let stage = format!("{} {}", at.stage, at.subject);
            watcher.heed(stage.trim_end(), at.done, at.of)
        });
        let fused = fused.or_raise()?;
        told.clone_from(&fused.report.notes);
        let json = serde_json::to_string(&fused.report)
            .map_err(|error| argument(format!("the report cannot be told: {error}")))?;
        Ok((json, markdown(&fused.report, &[])))
    });
    let (json, markdown) = watcher.end_raised(done)?;
    Ok((output, json, markdown, told))
}
