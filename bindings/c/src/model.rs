//! A model on a device.

use std::ffi::{CString, c_char};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::ThreadId;

use mixofshow::backend::wgpu::{self, ActivationUse, Gpu, MatrixUse, replaced_kernels};
use mixofshow::backend::{self, Selection, cpu};
use mixofshow::checkpoint::SHIPPED;
use mixofshow::graph::Array;
use mixofshow::picture::Picture;
use mixofshow::pipeline::Generated;
use mixofshow::pipeline::recipe::hex;
use mixofshow::{Checkpoint, Device, Pipeline, Precision};

use crate::border::{Struct, free, looking, making, read};
use crate::error::{MosStatus, Result, text, wrong};
use crate::given::{self, choice, object};
use crate::pictures::MosPictures;
use crate::request::{MosRequest, Order};
use crate::watch::Watcher;

/// A model, loaded. Calls on it wait for each other.
pub struct MosModel {
    pipeline: Mutex<Pipeline>,
    /// The thread that works with it.
    user: Mutex<Option<ThreadId>>,
    checkpoint: Checkpoint,
    device: Device,
    precision: Precision,
    hash: OnceLock<String>,
    name: String,
    device_name: CString,
    /// Of pictures that it was trained at, and the guidance that suits it.
    width: usize,
    height: usize,
    guidance: f32,
}

/// How a model is loaded: begun by mos_load_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct MosLoad {
    /// Of this struct, in bytes.
    pub size: usize,
    /// A folder, a file, or a name in MOS_MODELS; NULL: the very small model that ships.
    pub model: *const c_char,
    /// "cpu", or a graphics adapter by its number or a part of its name; NULL: what MOS_ADAPTER
    /// says, else the best.
    pub device: *const c_char,
    /// Of the weights: "as-stored", "f16", "f32", "q8_0", "q4_0"; NULL: as they are stored.
    pub precision: *const c_char,
}

// SAFETY: as it asks.
unsafe impl Struct for MosLoad {
    const NAME: &'static str = "MosLoad";

    fn usual() -> Self {
        MosLoad { size: 0, model: ptr::null(), device: ptr::null(), precision: ptr::null() }
    }
}

/// A variable of the environment, as the program `mos` heeds it.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

/// The folder in which models are looked for by name.
pub fn models() -> Option<PathBuf> {
    std::env::var_os("MOS_MODELS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Opens the device of this name; none: the one that MOS_ADAPTER names, else the best.
pub fn open_device(name: Option<String>) -> Result<Device> {
    let name = name.or_else(|| variable("MOS_ADAPTER")).unwrap_or_default();
    let matrices: Option<MatrixUse> = variable("MOS_MATRICES")
        .map(|word| word.parse())
        .transpose()
        .map_err(|error| wrong(format!("MOS_MATRICES: {error}")))?;
    let activations: Option<ActivationUse> = variable("MOS_ACTIVATIONS")
        .map(|word| word.parse())
        .transpose()
        .map_err(|error| wrong(format!("MOS_ACTIVATIONS: {error}")))?;
    let options = backend::Options {
        wgpu: wgpu::Options {
            matrices: matrices.unwrap_or_default(),
            activations: activations.unwrap_or_default(),
            ..wgpu::Options::default()
        },
        cpu: cpu::Options { level: variable("MOS_CPU_LEVEL"), threads: None },
    };
    Ok(backend::open(&Selection::of(&name), &options)?)
}

/// The pipeline while a call uses it.
struct Using<'m> {
    pipeline: MutexGuard<'m, Pipeline>,
    user: &'m Mutex<Option<ThreadId>>,
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        *self.user.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl MosModel {
    unsafe fn load(load: *const MosLoad) -> Result<MosModel> {
        let load = match load.is_null() {
            true => MosLoad::usual(),
            // SAFETY: as the header says, here and below.
            false => unsafe { read(load) }?,
        };
        let name = unsafe { given::text(load.model, "model") }?;
        let name = name.unwrap_or_else(|| SHIPPED.to_string());
        let precision = unsafe { choice(load.precision, "precision") }?.unwrap_or_default();
        let device = unsafe { given::text(load.device, "device") }?;
        let checkpoint = Checkpoint::open_named(&name, models().as_deref())?;
        let device = open_device(device)?;
        let pipeline = Pipeline::load(&device, &checkpoint, precision)?;
        let (width, height) = pipeline.default_size();
        Ok(MosModel {
            guidance: pipeline.guidance(),
            pipeline: Mutex::new(pipeline),
            user: Mutex::new(None),
            device_name: text(device.name()),
            hash: OnceLock::new(),
            checkpoint,
            device,
            precision,
            name,
            width,
            height,
        })
    }

    /// Waits for its turn.
    fn using(&self) -> Result<Using<'_>> {
        let here = std::thread::current().id();
        if *self.user.lock().unwrap_or_else(PoisonError::into_inner) == Some(here) {
            return Err(wrong("the model is at work in this thread: its callback cannot use it"));
        }
        let pipeline = self.pipeline.lock().unwrap_or_else(PoisonError::into_inner);
        *self.user.lock().unwrap_or_else(PoisonError::into_inner) = Some(here);
        Ok(Using { pipeline, user: &self.user })
    }

    fn make(&self, order: Order, watcher: Watcher) -> Result<MosPictures> {
        let Order { request, mut recipe } = order;
        recipe.model = Some(self.name.clone());
        recipe.precision = self.precision;
        recipe.adapter = Some(self.device.name().to_string());
        recipe.rounding = self.device.rounding();
        if self.device.backend::<Gpu>().is_some() {
            recipe.kernels = replaced_kernels()?.to_vec();
        }
        let mut using = self.using()?;
        let prepared = using.pipeline.prepare(&request)?;
        let stop = AtomicBool::new(false);
        // The hash reads the whole model, so it is made while the device works.
        let made: Result<Generated, _> = std::thread::scope(|scope| {
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
            let made = using.pipeline.make(prepared, &mut |at| watcher.heed(at));
            stop.store(made.is_err(), Ordering::Relaxed);
            made
        });
        recipe.model_hash = self.hash.get().cloned();
        MosPictures::new(made?, recipe)
    }

    pub fn encode(&self, picture: &Picture, tile: Option<usize>) -> Result<Array> {
        Ok(self.using()?.pipeline.encode(picture, tile)?)
    }

    pub fn decode(&self, latents: &Array, tile: Option<usize>) -> Result<Vec<Picture>> {
        Ok(self.using()?.pipeline.decode(latents, tile)?)
    }
}

/// Fills in the usual values of a struct of `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_load_init(to: *mut MosLoad, size: usize) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { crate::border::init(to, size) }
}

/// Opens a model and checks that it is whole; its weights go to the device when they are used.
/// `load` may be NULL: all is as usual then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_model_load(
    load: *const MosLoad,
    model: *mut *mut MosModel,
) -> MosStatus {
    // SAFETY: as the header says.
    unsafe { making(model, || MosModel::load(load)) }
}

/// Gives a model back. Nothing may be at work on it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_model_free(model: *mut MosModel) {
    // SAFETY: as the header says.
    unsafe { free(model) }
}

/// The name of the device that it is on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_model_device(model: *const MosModel) -> *const c_char {
    // SAFETY: as the header says.
    looking(ptr::null(), || Ok(unsafe { object(model, "model") }?.device_name.as_ptr()))
}

/// Width in pixels that it was trained at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_model_width(model: *const MosModel) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(model, "model") }?.width))
}

/// Height in pixels that it was trained at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_model_height(model: *const MosModel) -> usize {
    // SAFETY: as the header says.
    looking(0, || Ok(unsafe { object(model, "model") }?.height))
}

/// Makes pictures.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mos_generate(
    model: *const MosModel,
    request: *const MosRequest,
    pictures: *mut *mut MosPictures,
) -> MosStatus {
    // SAFETY: as the header says.
    unsafe {
        making(pictures, || {
            let model = object(model, "model")?;
            let request = read(request)?;
            let order = request.order(&model.checkpoint, model.guidance)?;
            model.make(order, Watcher { watch: request.watch, user: request.user })
        })
    }
}
