//! An opened device: queue, limits, kernels made so far, and an account of memory.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::Result;
use super::activations::ActivationUse;
use super::adapter::{Selection, select};
use super::buffer::{Buffer, Memory};
use super::error::Error;
use super::kernel::{Checks, Kernel, complaint, reflect};
use super::matrices::{Matrices, MatrixUse, Tested};
use super::measured;
use super::pipelines::Pipelines;
use super::template::{Params, cache_key, explained, kernel_names, render, replaced_kernels};
use super::traits::{Schedule, Traits};
use super::tuned::Tuned;

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The adapter.
    pub selection: Selection,
    /// Keep the bounds checks of generated shaders: slower, for tests.
    pub checked: bool,
    /// Stay within WebGPU's default limits and without optional features, whatever the adapter
    /// offers.
    pub floor: bool,
    /// Use this form of the heavy kernels instead of the one that suits the adapter.
    pub schedule: Option<Schedule>,
    /// Whether that is one with cooperative matrices, where `schedule` doesn't say it.
    pub matrices: MatrixUse,
    /// In which precision activations are kept, where weights are in f16.
    pub activations: ActivationUse,
    /// Render kernels with these sizes instead of those that suit the adapter.
    pub tuned: Option<Tuned>,
    /// With what kernels of one's own may want, where the adapter has it: f16, subgroups,
    /// timestamps.
    pub extras: bool,
    /// A folder where compiled kernels are kept between runs
    /// ([`cache_folder`](crate::checkpoint::output::cache_folder)); none are kept without.
    pub cache: Option<PathBuf>,
}

/// See [`Options::extras`].
const EXTRAS: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::SUBGROUP_BARRIER)
    .union(wgpu::Features::TIMESTAMP_QUERY);

/// A device and everything that belongs to it. Cheap to share behind an [`Arc`].
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) memory: Arc<Memory>,
    pub(super) info: wgpu::AdapterInfo,
    pub(super) limits: wgpu::Limits,
    checked: bool,
    pub(super) tuned: Tuned,
    /// The cooperative matrices to be used if they pass their test, or why there are none, and what
    /// came of the test.
    pub(super) matrices: Result<Matrices, String>,
    pub(super) tested: OnceLock<Result<Tested, String>>,
    pub(super) traits: OnceLock<Traits>,
    /// What is wanted of activations, and whether they are in f16.
    pub(super) activations: ActivationUse,
    pub(super) halves: OnceLock<Result<(), String>>,
    /// Whether gradients are right by matrices.
    pub(super) gradients: OnceLock<Result<(), String>>,
    /// The user's own kernels, by name.
    own: Mutex<HashMap<&'static str, String>>,
    /// By name and parameters, and whether they are checked.
    kernels: Mutex<HashMap<(String, bool), Arc<Kernel>>>,
    /// Those of earlier runs.
    pipelines: Option<Pipelines>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Options {
    /// The cooperative matrices to be used of those that a device `has`, or why none are.
    ///
    /// # Errors
    /// A schedule with other ones.
    pub(super) fn matrices_of(
        &self,
        has: Option<Matrices>,
        tuned: &Tuned,
    ) -> Result<Result<Matrices, String>, String> {
        match self.schedule {
            None => Ok(self.matrices.choose(has, tuned.matrices)),
            Some(Schedule::Staged) => Ok(Err("the schedule is given".to_string())),
            Some(Schedule::Matrices(given)) if has.is_some_and(|has| given.suits(has)) => {
                Ok(Ok(given))
            }
            Some(Schedule::Matrices(given)) => {
                Err(format!("it has no cooperative matrices such as {given:?}"))
            }
        }
    }
}

/// The first error counts, the others follow from it.
fn note(failure: &Mutex<Option<String>>, error: &wgpu::Error) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
}

impl Gpu {
    /// Opens the adapter that the options name.
    ///
    /// # Errors
    /// No such adapter; one that refuses the device; sizes or a schedule that it cannot have.
    pub fn open(options: &Options) -> Result<Arc<Gpu>> {
        replaced_kernels()?;
        let adapter = select(&options.selection)?;
        let info = adapter.get_info();
        let failed = |message| Error::Device { adapter: info.name.clone(), message };
        let tuned = match options.tuned {
            Some(tuned) => tuned,
            None => measured::sizes(&info).map_err(failed)?.0,
        };
        tuned.check().map_err(failed)?;
        let has = if options.floor {
            None
        } else {
            Matrices::of(&adapter, adapter.features(), &adapter.limits())
        };
        let matrices = options.matrices_of(has, &tuned).map_err(failed)?;
        let mut features = match (&matrices, info.backend) {
            (Err(_), _) => wgpu::Features::empty(),
            // Their SPIR-V is written here, where the adapter takes it.
            (Ok(_), wgpu::Backend::Vulkan) => {
                Matrices::FEATURES | adapter.features() & wgpu::Features::PASSTHROUGH_SHADERS
            }
            (Ok(_), _) => Matrices::FEATURES,
        };
        if options.activations == ActivationUse::F16 {
            if !adapter.features().contains(wgpu::Features::SHADER_F16) || options.floor {
                return Err(failed("it has no f16, which activations are asked for in".into()));
            }
            features |= wgpu::Features::SHADER_F16;
        }
        if options.extras {
            features |= adapter.features() & EXTRAS;
        }
        // Those of software drivers are of no use: they count other work, too.
        if info.device_type != wgpu::DeviceType::Cpu && !options.floor {
            features |= adapter.features() & wgpu::Features::TIMESTAMP_QUERY;
        }
        if options.cache.is_some() {
            features |= adapter.features() & wgpu::Features::PIPELINE_CACHE;
        }
        let limits = if options.floor { wgpu::Limits::default() } else { adapter.limits() };
        let experimental = if features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
            // SAFETY: the experimental features asked for are cooperative matrices and SPIR-V of
            // one's own for them. Only this program's own kernels use them (`Recording::new` takes
            // no others), after a self-test, and load and store them within the workgroup arrays
            // that they declare for them.
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: None,
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: experimental,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| failed(e.to_string()))?;
        Ok(Gpu::of(device, queue, info, limits, options, tuned, matrices))
    }

    /// Around a device that is open. Errors of it that nobody captures are noted from now on.
    pub(super) fn of(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: wgpu::AdapterInfo,
        limits: wgpu::Limits,
        options: &Options,
        tuned: Tuned,
        matrices: Result<Matrices, String>,
    ) -> Arc<Gpu> {
        let folder = options.cache.as_deref();
        let pipelines = folder.and_then(|folder| Pipelines::open(&device, &info, folder));
        let failure = Arc::new(Mutex::new(None));
        let seen = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| note(&seen, &error)));
        Arc::new(Gpu {
            device,
            queue,
            memory: Arc::default(),
            limits,
            checked: options.checked,
            tuned,
            matrices,
            tested: OnceLock::new(),
            traits: OnceLock::new(),
            activations: options.activations,
            halves: OnceLock::new(),
            gradients: OnceLock::new(),
            info,
            own: Mutex::default(),
            kernels: Mutex::default(),
            pipelines,
            failure,
        })
    }

    /// Notes an error of the device, for the next call that waits for it: for the handler of
    /// uncaptured errors of a host that hears them itself ([`Gpu::from_host`]).
    pub fn note_error(&self, error: &wgpu::Error) {
        note(&self.failure, error);
    }

    /// As the driver calls the adapter.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// wgpu's own, for kernels that are neither this program's nor dispatched by a recording.
    pub(crate) fn raw(&self) -> (&wgpu::Device, &wgpu::Queue) {
        (&self.device, &self.queue)
    }

    /// The sizes that its kernels are rendered with.
    pub fn tuned(&self) -> &Tuned {
        &self.tuned
    }

    /// Those of the device: what was asked for when it was opened.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// Largest binding, in bytes, that a plan may use.
    pub fn max_binding(&self) -> u64 {
        self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size)
    }

    /// Whether the adapter is a driver that computes on processor cores.
    pub fn is_software(&self) -> bool {
        self.info.device_type == wgpu::DeviceType::Cpu
    }

    /// Whether it was opened with cooperative matrices.
    pub fn has_matrices(&self) -> bool {
        self.device.features().contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX)
    }

    /// Takes a kernel of one's own: WGSL with one entry point `main`, whose bindings are all in
    /// group 0. From then on [`Command::Dispatch`] finds it by its name, without parameters.
    ///
    /// # Errors
    /// A name that one of this program's kernels has, or another of one's own; WGSL that is not
    /// valid, with the line.
    pub fn add_kernel(&self, name: &'static str, wgsl: impl Into<String>) -> Result<()> {
        let wgsl = wgsl.into();
        let failed = |message: &str| Error::Kernel { kernel: name.into(), message: message.into() };
        if kernel_names().iter().any(|known| known == name) {
            return Err(failed("a kernel of this program has that name"));
        }
        if let Some((line, what)) = complaint(&wgsl) {
            return Err(failed(&format!("line {line}: {what}")));
        }
        reflect(name, &wgsl)?;
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        match own.get(name) {
            Some(known) if *known != wgsl => Err(failed("there is another of that name already")),
            _ => {
                own.insert(name, wgsl);
                Ok(())
            }
        }
    }

    /// The user's own kernel of that name, if there is one.
    fn own_kernel(&self, name: &str, params: &Params) -> Result<Option<String>> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        match own.get(name) {
            Some(_) if !params.is_empty() => {
                let message = "kernels of one's own take no parameters".into();
                Err(Error::Kernel { kernel: name.into(), message })
            }
            found => Ok(found.cloned()),
        }
    }

    /// The kernel `kernels/<name>.wgsl` rendered with `params`; made once.
    pub fn kernel(&self, name: &str, params: &Params) -> Result<Arc<Kernel>> {
        self.compiled(name, params, Checks::AsOpened)
    }

    pub(super) fn compiled(
        &self,
        name: &str,
        params: &Params,
        checks: Checks,
    ) -> Result<Arc<Kernel>> {
        let checked = self.checked || checks == Checks::On;
        let key = (cache_key(name, params), checked);
        if let Some(kernel) = self.known(&key) {
            return Ok(kernel);
        }
        let wgsl = match self.own_kernel(name, params)? {
            Some(wgsl) => wgsl,
            None => render(name, params)?,
        };
        let cache = self.pipelines.as_ref().map(|pipelines| &pipelines.raw);
        let compiled = Kernel::compile(&self.device, checked, &key.0, &wgsl, cache);
        let kernel = Arc::new(compiled.map_err(|error| {
            match (error, explained(name, params, complaint)) {
                // Lines are the template's, which is what can be mended.
                (Error::Kernel { kernel, .. }, Some(message)) => Error::Kernel { kernel, message },
                (error, _) => error,
            }
        })?);
        if let Some(pipelines) = &self.pipelines {
            pipelines.note(&wgsl);
        }
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have made it meanwhile.
        Ok(kernels.entry(key).or_insert(kernel).clone())
    }

    fn known(&self, key: &(String, bool)) -> Option<Arc<Kernel>> {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Makes the kernels that are not there yet, on all cores at once, and keeps what is new for
    /// the next run.
    ///
    /// # Errors
    /// That of the first one, as they are given.
    pub(super) fn compile_all<'a>(
        &self,
        wanted: impl Iterator<Item = (&'static str, &'a Params)>,
        checks: Checks,
    ) -> Result<()> {
        let checked = self.checked || checks == Checks::On;
        let mut seen = HashSet::new();
        let new: Vec<_> = wanted
            .filter(|(name, params)| {
                let key = (cache_key(name, params), checked);
                self.known(&key).is_none() && seen.insert(key)
            })
            .collect();
        let next = AtomicUsize::new(0);
        // Drivers take long over a kernel: whoever is free takes the next one.
        let work = || -> Option<(usize, Error)> {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let &(name, params) = new.get(at)?;
                if let Err(error) = self.compiled(name, params, checks) {
                    return Some((at, error));
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(new.len());
        let failed = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..cores).map(|_| scope.spawn(work)).collect();
            let mine = work();
            let others = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            others.chain([mine]).flatten().min_by_key(|(at, _)| *at)
        });
        if let Some(pipelines) = self.pipelines.as_ref().filter(|_| !new.is_empty()) {
            pipelines.save();
        }
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Number of distinct kernels made so far.
    pub fn kernels(&self) -> usize {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A zeroed buffer for kernels and copies.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where the adapter allows no buffer of that size, [`Error::Lost`] where
    /// memory is exhausted.
    pub fn buffer(&self, what: &str, size: u64) -> Result<Arc<Buffer>> {
        self.make_buffer(what, size, wgpu::BufferUsages::STORAGE)
    }

    /// A buffer for uniforms.
    pub(super) fn uniform_buffer(&self, size: u64) -> Result<Arc<Buffer>> {
        self.make_buffer("uniforms", size, wgpu::BufferUsages::UNIFORM)
    }

    fn make_buffer(&self, what: &str, size: u64, usage: wgpu::BufferUsages) -> Result<Arc<Buffer>> {
        let size = size.max(16).next_multiple_of(16);
        if size > self.limits().max_buffer_size {
            return Err(Error::TooLarge {
                what: what.into(),
                needed: mebibytes(size),
                allowed: mebibytes(self.limits().max_buffer_size),
                adapter: self.name().into(),
            });
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage: usage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            let message = format!("{what} ({}): {error}", mebibytes(size));
            return Err(Error::Lost { adapter: self.name().into(), message });
        }
        Ok(Arc::new(Buffer::counted(raw, &self.memory)))
    }

    /// Queues `data` to be written at byte `offset` (a multiple of 4).
    pub fn write(&self, buffer: &Buffer, offset: u64, data: &[u8]) {
        self.queue.write_buffer(&buffer.raw, offset, data);
    }

    /// Sends what was queued and waits until the device has done it.
    pub fn flush(&self) -> Result<()> {
        self.queue.submit([]);
        self.wait()
    }

    /// Waits until what was submitted up to `last` is done; what went wrong, the next
    /// [`Gpu::wait`] tells.
    pub(super) fn wait_for(&self, last: wgpu::SubmissionIndex) {
        let poll = wgpu::PollType::Wait { submission_index: Some(last), timeout: None };
        drop(self.device.poll(poll));
    }

    /// Waits for everything submitted; an error if the device met one since the last call.
    pub fn wait(&self) -> Result<()> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (failure, polled) {
            (Some(message), _) => Err(Error::Lost { adapter: self.info.name.clone(), message }),
            (None, Err(e)) => {
                Err(Error::Lost { adapter: self.info.name.clone(), message: e.to_string() })
            }
            (None, Ok(_)) => Ok(()),
        }
    }

    /// The bytes `offset .. offset + size` of `buffer`, once everything submitted is done.
    pub fn read(&self, buffer: &Buffer, offset: u64, size: u64) -> Result<Vec<u8>> {
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size: size.next_multiple_of(4),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&buffer.raw, offset, &staging, 0, size.next_multiple_of(4));
        self.queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        self.wait()?;
        let range = staging
            .slice(..)
            .get_mapped_range()
            .map_err(|e| Error::Lost { adapter: self.info.name.clone(), message: e.to_string() })?;
        Ok(range[..size as usize].to_vec())
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}
