//! Fusing concepts into one model.

use std::path::PathBuf;
use std::sync::Arc;

use mixofshow::checkpoint::SHIPPED;
use mixofshow::concept::dialects;
use mixofshow::fusion::solve::{Exact, Lbfgs, Merge, Solver, Towards, Way};
use mixofshow::fusion::{
    self, ConceptToFuse, DistillationOptions, Order, Previous, Settings, markdown,
};
use mixofshow::{Checkpoint, Nowhere, Pipeline};
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
    /// None: statistics alone.
    output: Option<PathBuf>,
    model: Option<String>,
    device: Option<String>,
    replace: bool,
    statistics: Option<PathBuf>,
    part: Option<(usize, usize)>,
    rename: bool,
    /// A fused model to change.
    to: Option<PathBuf>,
    remove: Vec<String>,
    refresh: bool,
    settings: Given,
    progress: Option<Py<PyAny>>,
}

/// The keys of `FusionSettings`.
#[derive(FromPyObject)]
struct Given {
    solver: Option<String>,
    ridge: Option<f64>,
    density: Option<f64>,
    towards: Option<String>,
    keep: Option<Vec<String>>,
    keep_weight: Option<f64>,
    distillation: Option<u64>,
    distillation_rate: Option<f32>,
    distillation_rank: Option<usize>,
    scenes: Option<u64>,
    scene_strength: Option<f32>,
    one_prompt: Option<u64>,
    record: Option<String>,
    prompts: Option<Vec<String>>,
    sampled_prompts: Option<Vec<String>>,
    held_out: Option<Vec<String>>,
    fit: Option<String>,
    samples: Option<u64>,
    steps: Option<usize>,
    guidance: Option<f32>,
    size: Option<(usize, usize)>,
    seed: Option<u64>,
    precision: Option<String>,
}

/// The folder, the report as JSON and as Markdown, warnings.
type FusedModel = (Option<PathBuf>, String, String, Vec<String>);

/// One of a few names.
fn one<T: Copy>(option: &str, name: &Option<String>, all: &[(&str, T)]) -> PyResult<Option<T>> {
    let Some(name) = name else { return Ok(None) };
    let found = all.iter().find(|(known, _)| known == name).map(|(_, value)| Some(*value));
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|(known, _)| *known).collect();
        argument(format!("{option} is `{name}`: expected one of {}", names.join(", ")))
    })
}

/// Prompts with a place for a concept's words.
fn templates(option: &str, given: Option<Vec<String>>) -> PyResult<Option<Vec<String>>> {
    match given.iter().flatten().find(|line| !line.contains("{}")) {
        Some(wrong) => {
            let words = format!("{option}: \"{wrong}\" has no {{}} for the concept's words");
            Err(argument(words))
        }
        None => Ok(given),
    }
}

fn same_kind(a: &Solver, b: &Solver) -> bool {
    match (a, b) {
        (Solver::Merge(a), Solver::Merge(b)) => a.way == b.way,
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

impl Given {
    /// What is given, over what is usual for the solver, or over what the model was made with that
    /// is changed. The size is left out: it takes the model.
    fn settings(&mut self, previous: Option<&Previous>) -> PyResult<Settings> {
        let merge = |way| Solver::Merge(Merge::new(way));
        let solver = one(
            "solver",
            &self.solver,
            &[
                ("exact", Solver::Exact(Exact::default())),
                // 0: as published, stage by stage.
                ("lbfgs", Solver::Lbfgs(Lbfgs { iterations: 0 })),
                ("average", Solver::Average),
                ("sum", merge(Way::Sum)),
                ("ties", merge(Way::Ties)),
                ("dare", merge(Way::Dare)),
            ],
        )?;
        let record = one("record", &self.record, &[("usual", false), ("published", true)])?;
        let made = previous.and_then(|previous| previous.settings.clone());
        let same = |made: &Settings| solver.is_none_or(|solver| same_kind(&solver, &made.solver));
        let before = made.filter(|made| same(made) && record.is_none());
        let mut settings = before.unwrap_or_else(|| {
            let solver = solver.unwrap_or(Solver::Exact(Exact::default()));
            let usual = Settings::of(solver);
            let recorded = match record {
                None => return usual,
                Some(false) => Settings::default(),
                Some(true) => Settings::published(),
            };
            Settings { solver, distillation: usual.distillation, ..recorded }
        });
        let towards = one(
            "towards",
            &self.towards,
            &[("base", Towards::Base), ("average", Towards::Average)],
        )?;
        if let Solver::Exact(exact) = &mut settings.solver {
            exact.ridge = self.ridge.or(exact.ridge);
            exact.towards = towards.or(exact.towards);
            exact.keep_weight = self.keep_weight.unwrap_or(exact.keep_weight);
        }
        if let Solver::Merge(merge) = &mut settings.solver {
            merge.density = self.density.unwrap_or(merge.density);
            merge.seed = self.seed.unwrap_or(merge.seed);
        } else if self.density.is_some() {
            return Err(argument("density is of the solvers ties and dare: solver= names one"));
        }
        settings.steps = self.steps.unwrap_or(settings.steps);
        settings.guidance = self.guidance.unwrap_or(settings.guidance);
        settings.seeds = self.samples.unwrap_or(settings.seeds);
        settings.seed = self.seed.unwrap_or(settings.seed);
        if self.precision.is_some() {
            settings.precision = device::precision(self.precision.as_deref())?;
        }
        if let Some(prompts) = one("fit", &self.fit, &[("prompts", true), ("words", false)])? {
            settings.whole_prompts = prompts;
        }
        let asked = DistillationOptions {
            pictures: self.distillation,
            rate: self.distillation_rate,
            rank: self.distillation_rank,
            scenes: self.scenes,
            scene_strength: self.scene_strength,
            one_prompt: self.one_prompt,
        };
        let distilled = asked.over(settings.distillation, &|field| field.to_string());
        settings.distillation = distilled.map_err(|unfit| argument(unfit.words))?;
        if let Some(prompts) = templates("prompts", self.prompts.take())? {
            settings.prompts.clone_from(&prompts);
            settings.sampled = prompts;
        }
        if let Some(sampled) = templates("sampled_prompts", self.sampled_prompts.take())? {
            settings.sampled = sampled;
        }
        if let Some(held_out) = templates("held_out", self.held_out.take())? {
            settings.held_out = held_out;
        }
        if let Some(keep) = self.keep.take() {
            settings.keep = keep;
        }
        Ok(settings)
    }
}

/// The concepts that stay in a fused model that is changed, as they went in.
fn staying(
    previous: &Previous,
    statistics: Option<&PathBuf>,
    remove: &[String],
) -> PyResult<Vec<ConceptToFuse>> {
    for name in remove {
        let is = |concept: &fusion::ConceptReport| {
            [&concept.name, &concept.path, &concept.phrase].contains(&name)
        };
        if !previous.concepts.iter().any(is) {
            let names: Vec<&str> = previous.concepts.iter().map(|c| c.name.as_str()).collect();
            let words = names.join(", ");
            return Err(argument(format!(
                "the fused model has no concept `{name}`; it has {words}"
            )));
        }
    }
    let statistics = statistics.ok_or_else(|| {
        argument("statistics names the folder that was kept when the model was fused")
    })?;
    let mut before = previous.entries(statistics).or_raise()?;
    before.retain(|entry| {
        !remove.iter().any(|name| {
            entry.concept.name == *name
                || entry.path.as_os_str() == name.as_str()
                || entry.prompt.as_deref() == Some(name)
        })
    });
    Ok(before)
}

/// Fuses, and writes the model.
#[pyfunction]
pub fn fuse(py: Python<'_>, mut wanted: Wanted) -> PyResult<FusedModel> {
    let previous = wanted.to.as_deref().map(Previous::open).transpose().or_raise()?;
    let mut settings = wanted.settings.settings(previous.as_ref())?;
    settings.rename |= wanted.rename;
    let named: Vec<(PathBuf, [f32; 2], Option<String>)> = wanted
        .concepts
        .iter()
        .map(|(concept, prompt)| {
            let concept = concept.get();
            (concept.path().clone(), concept.scales(), prompt.clone())
        })
        .collect();
    let base = previous.as_ref().map(|previous| previous.base.clone());
    let model = wanted.model.or(base).unwrap_or_else(|| SHIPPED.into());
    // In place, unless another folder is named.
    let replace = wanted.replace || wanted.to.is_some() && wanted.output.is_none();
    let out = wanted.output.or(wanted.to.clone());
    let accept_stale = wanted.to.is_some() && !wanted.refresh;
    let (device, size) = (wanted.device, wanted.settings.size);
    let (statistics, part, remove) = (wanted.statistics, wanted.part, wanted.remove);
    let refresh = wanted.refresh;
    let mut watcher = Watcher::new(wanted.progress);
    let mut told = Vec::new();
    let done = py.detach(|| {
        let mut concepts = match &previous {
            Some(previous) => staying(previous, statistics.as_ref(), &remove)?,
            None => Vec::new(),
        };
        for (path, [unet, text], prompt) in named {
            let (concept, _) = dialects::read(&path).or_raise()?;
            concepts.push(ConceptToFuse { concept, path, unet, text, prompt });
        }
        if concepts.is_empty() {
            return Err(argument("there are no concepts to fuse"));
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
        let elsewhere = Arc::new(Nowhere);
        // With other settings all of it is another model.
        let history = match &previous {
            Some(previous) if !refresh && previous.settings.as_ref() == Some(&settings) => {
                previous.history.clone()
            }
            _ => Vec::new(),
        };
        let order =
            Order { concepts, out, replace, statistics, elsewhere, part, history, accept_stale };
        let fused = fusion::fuse(&gpu, &checkpoint, order, &settings, &mut |at| {
            // A stage is worked through concept by concept.
            let stage = format!("{} {}", at.stage, at.subject);
            watcher.heed(stage.trim_end(), at.done, at.of)
        });
        let fused = fused.or_raise()?;
        told.clone_from(&fused.report.notes);
        let json = serde_json::to_string(&fused.report)
            .map_err(|error| argument(format!("the report cannot be told: {error}")))?;
        Ok((fused.path, json, markdown(&fused.report, &[])))
    });
    let (path, json, markdown) = watcher.end_raised(done)?;
    Ok((path, json, markdown, told))
}
