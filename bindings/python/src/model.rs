//! A model on a device: pictures from requests.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::ThreadId;
use std::time::Duration;

use mixofshow::backend::wgpu::{Gpu, replaced_kernels};
use mixofshow::checkpoint::{SHIPPED, open_tiny_vae};
use mixofshow::picture::{Parameters, Picture, parameters};
use mixofshow::pipeline::recipe::{Recipe, Source, hex};
use mixofshow::pipeline::{self, Generated, PreparedRequest};
use mixofshow::{Checkpoint, Device, Pipeline, Precision};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::arrays::{Elements, Given, from_latents, latents_of};
use crate::device;
use crate::errors::{OrRaise, argument};
use crate::request::{Asked, Order, models};
use crate::watch::Watcher;

/// A model, loaded. Calls from several threads wait for each other.
#[pyclass(frozen, module = "mixofshow._native")]
pub struct Model {
    pipeline: Mutex<Pipeline>,
    /// The thread that works with it.
    user: Mutex<Option<ThreadId>>,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) gpu: Device,
    precision: Precision,
    hash: OnceLock<String>,
    /// The small autoencoder that decodes.
    vae: Option<Source>,
    /// As it was asked for.
    #[pyo3(get)]
    name: String,
    /// Width and height in pixels that it was trained at.
    #[pyo3(get)]
    size: (usize, usize),
    /// The guidance that suits it.
    #[pyo3(get)]
    guidance: f32,
    /// The sampler that its files name.
    #[pyo3(get)]
    sampler: String,
    /// Pixels per latent, along one side.
    #[pyo3(get)]
    factor: usize,
    /// What was assumed of its files.
    #[pyo3(get)]
    notes: Vec<String>,
}

/// Width, height, bytes of red, green and blue, and the texts `parameters` and `mos`.
pub type Pixels<'py> = (u32, u32, Bound<'py, PyBytes>);
type Shown<'py> = (Pixels<'py>, String, String);
/// Pictures, latents and their shape, warnings.
type Answer<'py> = (Vec<Shown<'py>>, Bound<'py, PyBytes>, [usize; 4], Vec<String>);

/// Opens a model and checks that it is whole; its weights go to the device when they are used.
#[pyfunction]
#[pyo3(signature = (model = None, device = None, precision = None, vae = None))]
pub fn load(
    py: Python<'_>,
    model: Option<PathBuf>,
    device: Option<String>,
    precision: Option<String>,
    vae: Option<PathBuf>,
) -> PyResult<Model> {
    let name = match model {
        Some(path) => path.to_str().map(str::to_string).ok_or_else(|| {
            argument(format!("model {}: a name that is not UTF-8", path.display()))
        })?,
        None => SHIPPED.to_string(),
    };
    let precision = device::precision(precision.as_deref())?;
    py.detach(|| {
        let checkpoint = Checkpoint::open_named(&name, models().as_deref()).or_raise()?;
        let gpu = device::open(device.as_deref())?;
        let mut pipeline = Pipeline::load(&gpu, &checkpoint, precision).or_raise()?;
        let vae = vae.map(|path| Source::of(&weights(path))).transpose().or_raise()?;
        if let Some(vae) = &vae {
            pipeline.decode_by(&open_tiny_vae(&vae.path).or_raise()?).or_raise()?;
        }
        Ok(Model {
            vae,
            size: pipeline.default_size(),
            guidance: pipeline.guidance(),
            sampler: pipeline.default_sampler().or_raise()?.to_string(),
            factor: pipeline.factor(),
            notes: pipeline.notes().to_vec(),
            pipeline: Mutex::new(pipeline),
            user: Mutex::new(None),
            hash: OnceLock::new(),
            checkpoint,
            gpu,
            precision,
            name,
        })
    })
}

/// The file of a folder in diffusers' layout; another path as it is.
fn weights(path: PathBuf) -> PathBuf {
    let inside = path.join("diffusion_pytorch_model.safetensors");
    if inside.is_file() { inside } else { path }
}

/// The pipeline while a call uses it.
pub struct Using<'m> {
    pub pipeline: MutexGuard<'m, Pipeline>,
    user: &'m Mutex<Option<ThreadId>>,
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        *self.user.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Model {
    /// The guidance that suits it.
    pub fn guidance(&self) -> f32 {
        self.guidance
    }

    /// How its weights are held.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// As it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of its weights, in hexadecimal digits.
    pub fn hash_text(&self) -> String {
        self.hash.get_or_init(|| hex(&self.checkpoint.hash())).clone()
    }

    /// Waits for its turn, without the GIL held; Ctrl-C ends the waiting.
    pub fn using(&self, watcher: &mut Watcher) -> PyResult<Using<'_>> {
        let here = std::thread::current().id();
        loop {
            if *self.user.lock().unwrap_or_else(PoisonError::into_inner) == Some(here) {
                return Err(argument(
                    "the model is at work in this thread: its progress callback cannot use it",
                ));
            }
            let pipeline = match self.pipeline.try_lock() {
                Ok(pipeline) => Some(pipeline),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            };
            if let Some(pipeline) = pipeline {
                *self.user.lock().unwrap_or_else(PoisonError::into_inner) = Some(here);
                return Ok(Using { pipeline, user: &self.user });
            }
            if watcher.heed_signals().is_break() {
                return Err(argument("cancelled"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes what was asked for. Without the GIL held.
    fn make(
        &self,
        order: Order,
        shown: Option<&Py<PyAny>>,
        watcher: &mut Watcher,
    ) -> PyResult<(Generated, Recipe)> {
        let Order { ref request, mut recipe, .. } = order;
        recipe.model = Some(self.name.clone());
        recipe.precision = self.precision;
        recipe.vae.clone_from(&self.vae);
        recipe.adapter = Some(self.gpu.name().to_string());
        recipe.rounding = self.gpu.rounding();
        if self.gpu.backend::<Gpu>().is_some() {
            recipe.kernels = replaced_kernels().or_raise()?.to_vec();
        }
        let mut using = self.using(watcher)?;
        let prepared: PreparedRequest = using.pipeline.prepare(request).or_raise()?;
        let stop = AtomicBool::new(false);
        let watcher = RefCell::new(watcher);
        let mut pictures = Vec::new();
        // The next time that the watch is asked, what was raised here ends the call.
        let mut see = |preview: &pipeline::Preview<'_>| {
            let Some(shown) = shown else { return };
            let _ = watcher.borrow_mut().tell(|py| {
                let pictures: Vec<Pixels<'_>> =
                    preview.pictures.iter().map(|picture| pixels(py, picture)).collect();
                shown.call1(py, (pictures, preview.done, preview.of)).map(drop)
            });
        };
        // The hash reads the whole model, so it is made while the device works.
        let generated = std::thread::scope(|scope| {
            if self.hash.get().is_none() {
                scope.spawn(|| {
                    let hash =
                        self.checkpoint.hash_watched(&mut |_| match stop.load(Ordering::Relaxed) {
                            true => ControlFlow::Break(()),
                            false => ControlFlow::Continue(()),
                        });
                    if let Ok(hash) = hash {
                        self.hash.get_or_init(|| hex(&hash));
                    }
                });
            }
            let made = using.pipeline.make_shown::<pipeline::Error>(
                prepared,
                &mut |at| watcher.borrow_mut().heed(at.stage, at.done, at.of),
                &mut |_, _, picture| {
                    pictures.push(picture);
                    Ok(())
                },
                &mut see,
            );
            stop.store(made.is_err(), Ordering::Relaxed);
            made
        });
        recipe.model_hash = self.hash.get().cloned();
        Ok((Generated { pictures, ..generated.or_raise()? }, recipe))
    }
}

#[pymethods]
impl Model {
    /// The name of the device that it is on.
    #[getter]
    fn device(&self) -> &str {
        self.gpu.name()
    }

    /// Networks inside of the model that steer pictures, by name.
    #[getter]
    fn controls(&self) -> Vec<String> {
        self.checkpoint.controls.keys().map(ToString::to_string).collect()
    }

    /// SHA-256 of its weights, in hexadecimal digits.
    #[getter]
    fn hash(&self, py: Python<'_>) -> String {
        py.detach(|| self.hash_text())
    }

    fn __repr__(&self) -> String {
        format!("Model({:?}, device={:?})", self.name, self.gpu.name())
    }

    /// Makes pictures.
    #[pyo3(signature = (asked, progress = None, shown = None))]
    fn generate<'py>(
        &self,
        py: Python<'py>,
        asked: Asked,
        progress: Option<Py<PyAny>>,
        shown: Option<Py<PyAny>>,
    ) -> PyResult<Answer<'py>> {
        let order = asked.order(py, &self.checkpoint, self.guidance)?;
        let mut watcher = Watcher::new(progress);
        let made = py.detach(|| self.make(order, shown.as_ref(), &mut watcher));
        let (generated, recipe) = watcher.end_raised(made)?;
        let mut shown = Vec::new();
        for (index, picture) in generated.pictures.iter().enumerate() {
            let told = recipe.parameters(&generated, index);
            let own = told.mos.as_ref().map(ToString::to_string).unwrap_or_default();
            shown.push((pixels(py, picture), parameters::format(&told), own));
        }
        let (latents, shape) = from_latents(py, &generated.latents)?;
        Ok((shown, latents, shape, generated.warnings))
    }

    /// The latents of a picture: bytes of f32, and their shape.
    #[pyo3(signature = (picture, tile = None))]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        picture: Given,
        tile: Option<usize>,
    ) -> PyResult<(Bound<'py, PyBytes>, [usize; 4])> {
        let (picture, _) = picture.picture("picture")?;
        let mut watcher = Watcher::default();
        let latents = py.detach(|| {
            let mut using = self.using(&mut watcher)?;
            using.pipeline.encode(&picture, tile).or_raise()
        });
        from_latents(py, &watcher.end_raised(latents)?)
    }

    /// The pictures that latents stand for.
    #[pyo3(signature = (latents, tile = None))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        latents: Elements,
        tile: Option<usize>,
    ) -> PyResult<Vec<Pixels<'py>>> {
        let latents = latents_of(&latents, "latents")?;
        let mut watcher = Watcher::default();
        let pictures = py.detach(|| {
            let mut using = self.using(&mut watcher)?;
            using.pipeline.decode(&latents, tile).or_raise()
        });
        let pictures = watcher.end_raised(pictures)?;
        Ok(pictures.iter().map(|picture| pixels(py, picture)).collect())
    }
}

/// A picture as Python gets it.
pub fn pixels<'py>(py: Python<'py>, picture: &Picture) -> Pixels<'py> {
    (picture.width(), picture.height(), PyBytes::new(py, picture.rgb()))
}

/// Writes a PNG with the texts that tell how it was made, as `mos generate` does.
#[pyfunction]
pub fn save(picture: Given, path: PathBuf, told: Option<(String, String)>) -> PyResult<()> {
    let (picture, _) = picture.picture("picture")?;
    let told = told.map(|(text, own)| settings(&path, &text, &own)).transpose()?;
    picture.save(&path, told.as_ref()).or_raise()
}

/// The settings of a picture out of its texts. The prompts are those of `mos`: the other text
/// cannot carry all of their white space.
fn settings(path: &Path, text: &str, own: &str) -> PyResult<Parameters> {
    let own: serde_json::Value = serde_json::from_str(own).map_err(|error| {
        argument(format!("{}: the picture's settings are not JSON: {error}", path.display()))
    })?;
    let parsed = parameters::parse(text);
    let of = |key: &str, or: String| own.get(key).and_then(|v| v.as_str()).map_or(or, String::from);
    Ok(Parameters {
        prompt: of("prompt", parsed.prompt),
        negative_prompt: of("negative_prompt", parsed.negative_prompt),
        settings: parsed.settings,
        rest: parsed.rest,
        mos: Some(own),
    })
}
