//! How much pictures look like what was asked for.

use mixofshow::concept::Applied;
use mixofshow::metrics::{self, Embedding, Evaluation, Sample, Towers};
use mixofshow::picture::Picture;
use pyo3::prelude::*;

use crate::arrays::Given;
use crate::concept::Concept;
use crate::errors::{OrRaise, argument};
use crate::model::{Model, Pixels, pixels};
use crate::request::{Asked, Order};
use crate::watch::Watcher;

type Scores = Vec<(&'static str, f64)>;

fn open(given: &[Given], what: &str) -> PyResult<Vec<Picture>> {
    given.iter().map(|given| Ok(given.picture(what)?.0)).collect()
}

fn seen(towers: &Towers, pictures: &[Picture], watcher: &mut Watcher) -> PyResult<Vec<Embedding>> {
    let mut seen = Vec::with_capacity(pictures.len());
    for (done, picture) in pictures.iter().enumerate() {
        if watcher.heed("pictures", done, pictures.len()).is_break() {
            return Err(crate::errors::Cancelled::new_err("cancelled"));
        }
        seen.push(towers.picture(picture).or_raise()?);
    }
    Ok(seen)
}

/// Scores by name, of all metrics that there is something for.
#[pyfunction]
#[pyo3(signature = (model, pictures, texts, trained_on, others, progress = None))]
pub fn scores(
    py: Python<'_>,
    model: Py<Model>,
    pictures: Vec<Given>,
    texts: Vec<String>,
    trained_on: Vec<Given>,
    others: Vec<Given>,
    progress: Option<Py<PyAny>>,
) -> PyResult<Scores> {
    let model = model.get();
    for (name, count) in [("texts", texts.len()), ("others", others.len())] {
        if count != 0 && count != pictures.len() {
            let words =
                format!("{name} are {count}: expected one for each of {} pictures", pictures.len());
            return Err(argument(words));
        }
    }
    let mut watcher = Watcher::new(progress);
    let done = py.detach(|| {
        let pictures = open(&pictures, "pictures")?;
        let (trained_on, others) = (open(&trained_on, "trained_on")?, open(&others, "others")?);
        let using = model.using(&mut watcher)?;
        let towers = Towers::load(&model.gpu, using.pipeline.model()).or_raise()?;
        let texts: Vec<Embedding> =
            texts.iter().map(|text| towers.text(text).or_raise()).collect::<PyResult<_>>()?;
        let sample = Sample {
            pictures: &pictures,
            seen: &seen(&towers, &pictures, &mut watcher)?,
            texts: &texts,
            trained_on: &seen(&towers, &trained_on, &mut watcher)?,
            others: &others,
            others_seen: &seen(&towers, &others, &mut watcher)?,
            ..Sample::default()
        };
        Ok(metrics::scores(&sample).iter().collect())
    });
    watcher.end_raised(done)
}

/// What is tried.
#[derive(FromPyObject)]
pub struct Tried {
    concepts: Vec<Py<Concept>>,
    /// With `<TOK>` where the concept's words go.
    prompts: Vec<String>,
    phrase: String,
    class_word: String,
    seeds: Vec<u64>,
    trained_on: Vec<Given>,
    progress: Option<Py<PyAny>>,
}

/// Makes pictures of a concept and scores them: Mix-of-Show, section 4.1.
#[pyfunction]
pub fn trial<'py>(
    py: Python<'py>,
    model: Py<Model>,
    wanted: Tried,
    asked: Asked,
) -> PyResult<(Scores, Vec<Pixels<'py>>)> {
    let model = model.get();
    let Order { request, .. } = asked.order(py, &model.checkpoint, model.guidance())?;
    let mut applied: Vec<Applied> = Vec::new();
    for concept in &wanted.concepts {
        applied.extend(concept.get().applied()?.into_iter().map(|(applied, _)| applied));
    }
    let Tried { prompts, phrase, class_word: class, seeds, trained_on, progress, .. } = wanted;
    let mut watcher = Watcher::new(progress);
    let done = py.detach(|| {
        let trained_on = open(&trained_on, "trained_on")?;
        let mut using = model.using(&mut watcher)?;
        let towers = Towers::load(&model.gpu, using.pipeline.model()).or_raise()?;
        let trained_on = seen(&towers, &trained_on, &mut watcher)?;
        let evaluation = Evaluation { prompts, class, seeds, request, trained_on };
        let mut watch = |at: mixofshow::Progress<'_>| watcher.heed(at.stage, at.done, at.of);
        let pipeline = &mut using.pipeline;
        let (scores, pictures) =
            evaluation.run(pipeline, &towers, &phrase, &applied, &mut watch).or_raise()?;
        Ok((scores.iter().collect(), pictures))
    });
    let (scores, pictures): (Scores, Vec<Picture>) = watcher.end_raised(done)?;
    Ok((scores, pictures.iter().map(|picture| pixels(py, picture)).collect()))
}
