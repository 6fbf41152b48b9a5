//! Teaching a concept.

use std::path::{Path, PathBuf};

use mixofshow::Checkpoint;
use mixofshow::training::config::{self, Options, Settings};
use mixofshow::training::{Begin, Event, Run, Summary};
use pyo3::prelude::*;

use crate::device;
use crate::errors::{OrRaise, argument};
use crate::request::models;
use crate::watch::Watcher;

/// The names of all settings that are no folders.
pub const KEYS: &[&str] = Options::KEYS;

/// Settings by name as JSON, over those of a file.
#[derive(FromPyObject)]
pub struct Wanted {
    file: Option<PathBuf>,
    /// An object: keys as in the file.
    over: String,
    resume: bool,
    restart: bool,
    device: Option<String>,
    progress: Option<Py<PyAny>>,
    /// Called with the update, of all, the loss, and the norm of the words' embeddings.
    update: Option<Py<PyAny>>,
}

/// Concept, curve and sheet; first and last losses, norm; updates; warnings.
type Taught = (PathBuf, PathBuf, Option<PathBuf>, [f32; 2], f32, u64, Vec<String>);

/// Teaches, and writes the concept file.
#[pyfunction]
pub fn train(py: Python<'_>, wanted: Wanted) -> PyResult<Taught> {
    let begin = match (wanted.resume, wanted.restart) {
        (true, true) => {
            return Err(argument("resume goes on with a run and restart begins anew: give one"));
        }
        (true, _) => Begin::Resume,
        (_, true) => Begin::Again,
        _ => Begin::New,
    };
    let Wanted { file, over, device, progress, update, .. } = wanted;
    let over = serde_json::from_str(&over)
        .map_err(|error| argument(format!("settings: not JSON: {error}")))?;
    let over = Options::of_json(Path::new("settings"), over).or_raise()?;
    let (read, mut told) = match &file {
        Some(path) => config::read(path).or_raise()?,
        None => Default::default(),
    };
    let settings = Settings::new(over.or(read)).or_raise()?;
    let mut watcher = Watcher::new(progress);
    let done = py.detach(|| {
        let checkpoint = Checkpoint::open_named(&settings.model, models().as_deref()).or_raise()?;
        let gpu = device::open(device.as_deref())?;
        let mut remark = |text: &str| told.push(text.to_string());
        let mut run = Run::prepare(&gpu, &checkpoint, &settings, begin, &mut remark).or_raise()?;
        learn(&mut run, update.as_ref(), &mut watcher)
    });
    let Summary { concept, curve, sheet, losses, norm, steps, .. } = watcher.end_raised(done)?;
    Ok((concept, curve, sheet, losses, norm, steps, told))
}

fn learn(run: &mut Run, update: Option<&Py<PyAny>>, watcher: &mut Watcher) -> PyResult<Summary> {
    let done = run.run(&mut |event| match event {
        Event::Update(at) => {
            if let Some(update) = update {
                let told = watcher
                    .tell(|py| update.call1(py, (at.done, at.of, at.loss, at.norm)).map(drop));
                if told.is_break() {
                    return told;
                }
            }
            watcher.heed("train", at.done as usize, at.of as usize)
        }
        Event::Sheet(at) | Event::Class(at) => watcher.heed(at.stage, at.done, at.of),
        _ => watcher.heed_signals(),
    });
    done.or_raise()
}
