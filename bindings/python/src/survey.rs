//! `mos eval`: many pictures of concepts, made and scored in a folder.

use std::path::{Path, PathBuf};

use mixofshow::backend::wgpu::{Gpu, replaced_kernels};
use mixofshow::checkpoint::output;
use mixofshow::concept::ScaledFile;
use mixofshow::metrics::survey::{
    self, Done, Judge, Opened, Order, PromptList, Results, SHIPPED_JUDGE, STAND_IN, Share, Stage,
};
use pyo3::prelude::*;

use crate::concept::Concept;
use crate::errors::{OrRaise, argument};
use crate::model::Model;
use crate::request::AskedControl;
use crate::watch::Watcher;

/// What is asked for; what is none is as in `mos eval`.
#[derive(FromPyObject)]
pub struct Wanted {
    concepts: Vec<Py<Concept>>,
    pictures: Vec<PathBuf>,
    output: PathBuf,
    /// `known` or `general`.
    list: Option<String>,
    prompts_file: Option<PathBuf>,
    /// One a line.
    prompts: Option<String>,
    count: Option<u64>,
    together: Option<u64>,
    one_prompt: Option<u64>,
    scene_strength: Option<f32>,
    controls: Vec<AskedControl>,
    place: Option<String>,
    class_words: Vec<String>,
    force_base: bool,
    classes: Vec<String>,
    seed: Option<u64>,
    steps: Option<usize>,
    guidance: Option<f32>,
    sampler: Option<String>,
    size: Option<(usize, usize)>,
    /// By the names of their judges.
    towers: Vec<(String, PathBuf)>,
    judge: Option<String>,
    as_published: bool,
    part: Option<String>,
    renew: bool,
    progress: Option<Py<PyAny>>,
}

/// Pictures made, made anew, scored, of this part, and missing of all; results as JSON and as a
/// table, where none is missing; warnings.
type Answer = ([usize; 5], Option<(String, String)>, Vec<String>);

fn parsed<T: std::str::FromStr>(option: &str, text: &str) -> PyResult<T>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| argument(format!("{option}: {error}")))
}

/// As it is given, else as the environment of a job array says.
fn share(part: Option<&str>, told: &mut Vec<String>) -> PyResult<Share> {
    if let Some(part) = part {
        return Share::parse(part).map_err(|error| argument(format!("part `{part}`: {error}")));
    }
    let found = Share::of_environment(|name| std::env::var(name).ok()).or_raise()?;
    let Some((share, by)) = found else { return Ok(Share::ALL) };
    if share.is_part() {
        told.push(format!("part {share}, as {by} says; part=\"1/1\" makes all"));
    }
    Ok(share)
}

impl Wanted {
    fn list(&self) -> PyResult<Option<PromptList>> {
        let read = |path: &Path, bytes: Vec<u8>| PromptList::read(path, bytes).or_raise();
        if let Some(text) = &self.prompts {
            return read(Path::new("prompts"), text.clone().into_bytes()).map(Some);
        }
        if let Some(path) = &self.prompts_file {
            let bytes = std::fs::read(path).map_err(|error| {
                argument(format!("prompts {}: cannot be read: {error}", path.display()))
            })?;
            return read(path, bytes).map(Some);
        }
        match self.list.as_deref() {
            None => Ok(None),
            Some("known") => Ok(Some(PromptList::known())),
            Some("general") => Ok(Some(PromptList::general())),
            Some(other) => {
                Err(argument(format!("prompts: `{other}` is no list: expected known or general")))
            }
        }
    }

    fn order(&self, model: &Model) -> PyResult<(Order, Option<Judge>)> {
        let usual = Order::default();
        let sampler = self.sampler.as_deref().map(|name| parsed("sampler", name)).transpose()?;
        let judge = self.judge.as_deref().map(|name| parsed("judge", name)).transpose()?;
        let order = Order {
            pictures: self.count.unwrap_or(usual.pictures),
            together: self.together,
            one_prompt: self.one_prompt.unwrap_or(usual.one_prompt),
            scene_strength: self.scene_strength.unwrap_or(usual.scene_strength),
            controls: usual.controls,
            place: self.place.clone().unwrap_or(usual.place),
            seed: self.seed.unwrap_or(usual.seed),
            size: self.size,
            steps: self.steps.unwrap_or(usual.steps),
            guidance: self.guidance,
            sampler: sampler.unwrap_or(usual.sampler),
            precision: model.precision(),
            judge: usual.judge,
            as_published: self.as_published,
        };
        Ok((order, judge))
    }

    fn cast(&self) -> PyResult<survey::Wanted> {
        let scaled = |concept: &Py<Concept>| {
            let concept = concept.get();
            let [unet, text] = concept.scales();
            ScaledFile { path: concept.path().clone(), unet, text }
        };
        let classes = self.classes.iter().map(|name| parsed("classes", name));
        Ok(survey::Wanted {
            concepts: self.concepts.iter().map(scaled).collect(),
            force_base: self.force_base,
            pictures: self.pictures.clone(),
            class_words: self.class_words.clone(),
            classes: classes.collect::<PyResult<_>>()?,
        })
    }
}

fn told(results: &Results) -> PyResult<(String, String)> {
    let json = serde_json::to_string(results)
        .map_err(|error| argument(format!("the results cannot be told: {error}")))?;
    Ok((json, results.table()))
}

/// Makes and scores what is missing of a survey.
#[pyfunction]
pub fn evaluate(py: Python<'_>, model: Py<Model>, wanted: Wanted) -> PyResult<Answer> {
    let model = model.get();
    let mut warnings = Vec::new();
    let share = share(wanted.part.as_deref(), &mut warnings)?;
    let (mut order, judge) = wanted.order(model)?;
    let (cast, list) = (wanted.cast()?, wanted.list()?);
    let Wanted { controls, pictures, output: out, towers: files, renew, progress, .. } = wanted;
    order.controls = AskedControl::open_all(controls, &model.checkpoint)?;
    let mut watcher = Watcher::new(progress);
    let done = py.detach(|| {
        output::check_folder(&out)
            .map_err(|error| argument(format!("{}: cannot be written: {error}", out.display())))?;
        let mut towers = Opened::default();
        for (name, path) in files {
            let judge: Judge = parsed("towers", &name)?;
            towers.open(judge, &path).or_raise()?;
        }
        let (judge, shipped) = towers.judge(judge, &model.checkpoint).or_raise()?;
        order.judge = judge;
        if shipped {
            warnings.push(SHIPPED_JUDGE.to_string());
        }
        warnings.extend(towers.notes());
        let list = list.unwrap_or_else(|| PromptList::of_model(&model.checkpoint));
        let cast = cast.read(&model.checkpoint, &list).or_raise()?;
        warnings.extend(cast.notes.iter().cloned());
        survey::check_apart(pictures.iter().map(PathBuf::as_path), &out).or_raise()?;
        let hash = model.hash_text();
        let mut using = model.using(&mut watcher)?;
        let stand_in = towers.stand_in(using.pipeline.model()).or_raise()?;
        if stand_in.is_some() {
            warnings.push(STAND_IN.to_string());
        }
        let scores = stand_in.as_ref().unwrap_or(using.pipeline.model()).clone();
        let replaced = match model.gpu.backend::<Gpu>() {
            Some(_) => replaced_kernels().or_raise()?,
            None => &[],
        };
        let on = Stage {
            name: model.name(),
            hash,
            pipeline: &using.pipeline,
            gpu: &model.gpu,
            kernels: replaced,
        };
        let made = order.survey(cast, &towers, &scores, &on).or_raise()?;
        let differ = made.check(&out, renew).or_raise()?;
        if !differ.is_empty() {
            let keys = differ.join(", ");
            warnings.push(format!("{}: other settings than before: {keys}", out.display()));
        }
        let judges = towers.load(&model.gpu, &scores, order.judge).or_raise()?;
        let mut watch = |at: mixofshow::Progress<'_>| watcher.heed(at.stage, at.done, at.of);
        let done =
            made.run(&mut using.pipeline, &judges, &out, share, renew, &mut watch).or_raise()?;
        let results = match done.missing {
            0 => Some(told(&survey::write(&out).or_raise()?)?),
            _ => None,
        };
        Ok((done, results))
    });
    let (done, results) = watcher.end_raised(done)?;
    let Done { of, made, renewed, scored, missing, warnings: found, .. } = done;
    warnings.extend(found);
    if renewed > 0 {
        warnings.push(format!("{renewed} pictures had been made otherwise and were made anew"));
    }
    Ok(([made, renewed, scored, of, missing], results, warnings))
}

/// Parts of a survey, as `mos eval merge` puts them together.
#[pyfunction]
pub fn merge(py: Python<'_>, parts: Vec<PathBuf>, out: PathBuf) -> PyResult<(String, String)> {
    py.detach(|| told(&survey::merge(&parts, &out).or_raise()?))
}
