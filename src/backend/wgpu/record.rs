//! Commands as data, and the recording that plays them any number of times.
//!
//! Commands are only data: any grid, any uniforms, any kernel. Shaders without run-time checks read
//! and write where they are told, so who records either has them checked ([`Recording::new`]) or
//! vouches for the commands ([`Recording::trusted`]).

mod timed;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::kernel::{Access, Checks, Scalar};
use super::{Buffer, Error, Gpu, Kernel, Params, Result, Slice};
use crate::backend::Cost;

/// A uniform's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Uniform {
    /// An unsigned number.
    U32(u32),
    /// A floating-point number.
    F32(f32),
}

impl From<usize> for Uniform {
    fn from(value: usize) -> Self {
        Uniform::U32(value as u32)
    }
}

impl From<f32> for Uniform {
    fn from(value: f32) -> Self {
        Uniform::F32(value)
    }
}

/// One thing for the device to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Runs a kernel.
    Dispatch {
        /// Its name: a file of `kernels/`, or one of one's own ([`Gpu::add_kernel`]).
        kernel: &'static str,
        /// What it is rendered with; one of one's own takes none.
        params: Params,
        /// Buffers by the names that the WGSL gives them, with their elements' type.
        bindings: Vec<(String, Slice, Scalar)>,
        /// Numbers by the names that the WGSL gives them; all must be there.
        uniforms: Vec<(&'static str, Uniform)>,
        /// Workgroups in x, y, z.
        grid: [u32; 3],
        /// What the time is accounted to.
        label: String,
        /// Floating-point operations, for profiles and for where submits are cut.
        flops: u64,
        /// Bytes read and written, each once.
        bytes: u64,
    },
    /// Copies as many bytes as `from` has.
    Copy {
        /// What is read.
        from: Slice,
        /// What is written.
        to: Slice,
    },
}

struct Dispatch {
    kernel: Arc<Kernel>,
    bind_group: wgpu::BindGroup,
    grid: [u32; 3],
    flops: u64,
}

enum Played {
    Dispatch(Dispatch),
    Copy { from: Slice, to: Slice },
}

impl Dispatch {
    fn add_to(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.kernel.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        let [x, y, z] = self.grid;
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Played {
    fn is_dispatch(&self) -> bool {
        matches!(self, Played::Dispatch(_))
    }
}

/// Commands with pipelines, uniforms and bind groups made once.
pub struct Recording {
    gpu: Arc<Gpu>,
    commands: Vec<Played>,
    labels: Vec<(String, u64, u64)>,
    /// Floating-point operations a second of its fastest play, once one is done.
    rate: Arc<AtomicU64>,
    /// Every buffer that the commands use: bind groups keep them on the device, so they stay in the
    /// account of memory.
    _buffers: Vec<Arc<Buffer>>,
}

/// Submits are cut after this many floating-point operations, or commands, while nobody knows how
/// fast the device does them: long enough to hide the cost of a submit, short enough for a watchdog
/// that kills what runs two seconds.
const SUBMIT_FLOPS: u64 = 20_000_000_000;
const SUBMIT_COMMANDS: usize = 128;
/// Then after what took about this long before: a tenth of that watchdog's time.
const SUBMIT_SECONDS: f64 = 0.2;
const MOST_COMMANDS: usize = 8192;

impl Recording {
    /// Records commands of any kind: kernels are compiled with run-time checks, so that none reads
    /// or writes beyond its bindings whatever its uniforms and its grid say.
    ///
    /// # Errors
    /// A kernel that is not valid, bindings or uniforms that are not the kernel's, more workgroups
    /// or larger bindings than the adapter allows; a kernel that uses cooperative matrices, which
    /// run-time checks do not cover.
    pub fn new(gpu: &Arc<Gpu>, commands: &[Command]) -> Result<Recording> {
        Recording::of(gpu, commands, Checks::On)
    }

    /// As [`Recording::new`], but with kernels compiled without run-time checks, unless the device
    /// was opened with them ([`Options::checked`](super::Options::checked)).
    ///
    /// # Errors
    /// As those of [`Recording::new`], but for cooperative matrices.
    ///
    /// # Safety
    /// Every dispatch keeps its kernel's contract, the comment at the head of
    /// `kernels/<name>.wgsl`: parameters are among those that the kernel is written for, bindings
    /// have at least the elements that the contract gives them for these uniforms, and the grid has
    /// no workgroups but those that the contract shares the result out to. A kernel of one's own
    /// ([`Gpu::add_kernel`]) stays within its bindings.
    pub unsafe fn trusted(gpu: &Arc<Gpu>, commands: &[Command]) -> Result<Recording> {
        Recording::of(gpu, commands, Checks::AsOpened)
    }

    fn of(gpu: &Arc<Gpu>, commands: &[Command], checks: Checks) -> Result<Recording> {
        let alignment = u64::from(gpu.limits().min_uniform_buffer_offset_alignment).max(16);
        gpu.compile_all(dispatched(commands), checks)?;
        let mut kernels = Vec::with_capacity(commands.len());
        let mut slab: Vec<u8> = Vec::new();
        for command in commands {
            let Command::Dispatch { kernel, params, uniforms, .. } = command else {
                kernels.push(None);
                continue;
            };
            let kernel = gpu.compiled(kernel, params, checks)?;
            if checks == Checks::On && kernel.interface.cooperative {
                let message = "cooperative matrices cannot be checked at run time".into();
                return Err(Error::Kernel { kernel: kernel.name.clone(), message });
            }
            let offset = (slab.len() as u64).next_multiple_of(alignment);
            slab.resize(offset as usize, 0);
            slab.extend(pack_uniforms(&kernel, uniforms)?);
            kernels.push(Some((kernel, offset)));
        }
        let uniforms = gpu.uniform_buffer(slab.len() as u64)?;
        gpu.write(&uniforms, 0, &slab);
        let mut played = Vec::with_capacity(commands.len());
        let mut labels = Vec::with_capacity(commands.len());
        for (command, kernel) in commands.iter().zip(kernels) {
            match (command, kernel) {
                (
                    Command::Dispatch { bindings, grid, label, flops, bytes, .. },
                    Some((kernel, offset)),
                ) => {
                    let bind_group = bind(gpu, &kernel, bindings, &uniforms, offset)?;
                    check_grid(gpu, &kernel, *grid)?;
                    played.push(Played::Dispatch(Dispatch {
                        kernel,
                        bind_group,
                        grid: *grid,
                        flops: *flops,
                    }));
                    labels.push((label.clone(), *flops, *bytes));
                }
                (Command::Copy { from, to }, _) => {
                    played.push(Played::Copy { from: from.clone(), to: to.clone() });
                    labels.push(("copy".into(), 0, from.size * 2));
                }
                (Command::Dispatch { .. }, None) => {}
            }
        }
        let mut buffers = distinct_buffers(commands);
        buffers.push(uniforms);
        let rate = Arc::default();
        Ok(Recording { gpu: gpu.clone(), commands: played, labels, rate, _buffers: buffers })
    }

    /// Commands in it.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Floating-point operations of all commands.
    pub fn flops(&self) -> u64 {
        self.labels.iter().map(|(_, flops, _)| flops).sum()
    }

    /// Bytes of all commands' bindings.
    pub fn bytes(&self) -> u64 {
        self.labels.iter().map(|(_, _, bytes)| bytes).sum()
    }

    /// Whether it has no commands.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Submits all commands; does not wait.
    pub fn play(&self) {
        self.play_part(0..self.commands.len());
    }

    /// How many submits a play takes now: fewer once one was done, and told how fast the device is.
    pub fn submits(&self) -> usize {
        let mut rest = &self.commands[..];
        let mut submits = 0;
        while !rest.is_empty() {
            rest = &rest[self.cut(rest).0..];
            submits += 1;
        }
        submits
    }

    /// How many of these commands one submit takes, and their floating-point operations.
    fn cut(&self, commands: &[Played]) -> (usize, u64) {
        let known = self.rate.load(Ordering::Relaxed);
        let most = ((known as f64 * SUBMIT_SECONDS) as u64).max(SUBMIT_FLOPS);
        let most_commands = if most > SUBMIT_FLOPS { MOST_COMMANDS } else { SUBMIT_COMMANDS };
        let (mut count, mut flops) = (0, 0);
        for command in commands {
            if count == most_commands || (count > 0 && flops > most) {
                break;
            }
            if let Played::Dispatch(dispatch) = command {
                flops += dispatch.flops;
            }
            count += 1;
        }
        (count, flops)
    }

    /// Submits the commands `range`; does not wait. What is given back stands for the last of them.
    pub(super) fn play_part(&self, range: std::ops::Range<usize>) -> Option<wgpu::SubmissionIndex> {
        let mut rest = self.commands.get(range).unwrap_or_default();
        let mut last = None;
        let (start, mut all) = (Instant::now(), 0);
        while !rest.is_empty() {
            let (count, flops) = self.cut(rest);
            let (now, later) = rest.split_at(count);
            last = Some(submit(&self.gpu, now));
            rest = later;
            all += flops;
        }
        // What is too short says more of the submit. What waits for others' work says too little,
        // which does no harm.
        if all >= SUBMIT_FLOPS {
            let rate = self.rate.clone();
            self.gpu.queue.on_submitted_work_done(move || {
                let seconds = start.elapsed().as_secs_f64().max(1e-9);
                rate.fetch_max((all as f64 / seconds) as u64, Ordering::Relaxed);
            });
        }
        last
    }

    /// Submits the commands `range`, and waits for them.
    pub fn play_range(&self, range: std::ops::Range<usize>) -> Result<()> {
        if let Some(commands) = self.commands.get(range).filter(|commands| !commands.is_empty()) {
            submit(&self.gpu, commands);
        }
        self.gpu.wait()
    }

    /// Plays the commands one at a time and sums what they cost by label: by the device's own
    /// timestamps where it was opened with them, as cards are, else each waited for, by `clock`,
    /// which gives seconds.
    pub fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>> {
        Ok(summed(self.timeline(clock)?))
    }

    /// As [`Recording::profile`], command by command.
    pub fn timeline(&self, clock: &dyn Fn() -> f64) -> Result<Vec<(String, Cost)>> {
        self.timeline_of(0..self.commands.len(), clock)
    }

    /// [`Recording::timeline`] of the commands `range`.
    pub(super) fn timeline_of(
        &self,
        range: std::ops::Range<usize>,
        clock: &dyn Fn() -> f64,
    ) -> Result<Vec<(String, Cost)>> {
        let commands = self.commands.get(range.clone()).unwrap_or_default();
        let seconds = match timed::by_timestamps(&self.gpu, commands)? {
            Some(seconds) => seconds,
            None => timed::by_clock(&self.gpu, commands, clock)?,
        };
        let labels = self.labels.get(range).unwrap_or_default();
        let cost = |((label, flops, bytes), seconds): (&(String, u64, u64), f64)| {
            (label.clone(), Cost { calls: 1, seconds, flops: *flops, bytes: *bytes })
        };
        Ok(labels.iter().zip(seconds).map(cost).collect())
    }
}

/// Costs by label.
pub(super) fn summed(timeline: Vec<(String, Cost)>) -> HashMap<String, Cost> {
    let mut costs: HashMap<String, Cost> = HashMap::new();
    for (label, one) in timeline {
        let cost = costs.entry(label).or_default();
        cost.calls += one.calls;
        cost.seconds += one.seconds;
        cost.flops += one.flops;
        cost.bytes += one.bytes;
    }
    costs
}

/// The kernels of `commands`, and what they are rendered with.
pub(super) fn dispatched(commands: &[Command]) -> impl Iterator<Item = (&'static str, &Params)> {
    commands.iter().filter_map(|command| match command {
        Command::Dispatch { kernel, params, .. } => Some((*kernel, params)),
        Command::Copy { .. } => None,
    })
}

fn copy(encoder: &mut wgpu::CommandEncoder, from: &Slice, to: &Slice) {
    let (source, target) = (&from.buffer.raw, &to.buffer.raw);
    encoder.copy_buffer_to_buffer(source, from.offset, target, to.offset, from.size);
}

fn submit(gpu: &Gpu, commands: &[Played]) -> wgpu::SubmissionIndex {
    let mut encoder = gpu.device.create_command_encoder(&Default::default());
    let mut rest = commands;
    while let Some(first) = rest.first() {
        if let Played::Copy { from, to } = first {
            copy(&mut encoder, from, to);
            rest = &rest[1..];
            continue;
        }
        let mut pass = encoder.begin_compute_pass(&Default::default());
        while let Some(Played::Dispatch(dispatch)) = rest.first() {
            dispatch.add_to(&mut pass);
            rest = &rest[1..];
        }
    }
    gpu.queue.submit([encoder.finish()])
}

/// Submits one dispatch, without a recording.
///
/// # Safety
/// As of [`Recording::trusted`].
pub(super) unsafe fn run_once(gpu: &Gpu, command: &Command) -> Result<()> {
    let Command::Dispatch { kernel, params, bindings, uniforms, grid, .. } = command else {
        return Ok(());
    };
    let kernel = gpu.compiled(kernel, params, Checks::AsOpened)?;
    let packed = pack_uniforms(&kernel, uniforms)?;
    let uniforms = gpu.uniform_buffer(packed.len() as u64)?;
    gpu.write(&uniforms, 0, &packed);
    let bind_group = bind(gpu, &kernel, bindings, &uniforms, 0)?;
    check_grid(gpu, &kernel, *grid)?;
    submit(gpu, &[Played::Dispatch(Dispatch { kernel, bind_group, grid: *grid, flops: 0 })]);
    Ok(())
}

fn distinct_buffers(commands: &[Command]) -> Vec<Arc<Buffer>> {
    let mut seen = HashSet::new();
    let mut buffers = Vec::new();
    let mut add = |slice: &Slice| {
        if seen.insert(Arc::as_ptr(&slice.buffer)) {
            buffers.push(slice.buffer.clone());
        }
    };
    for command in commands {
        match command {
            Command::Dispatch { bindings, .. } => {
                bindings.iter().for_each(|(_, slice, _)| add(slice))
            }
            Command::Copy { from, to } => [from, to].into_iter().for_each(&mut add),
        }
    }
    buffers
}

fn pack_uniforms(kernel: &Kernel, values: &[(&'static str, Uniform)]) -> Result<Vec<u8>> {
    let failed = |message: String| Error::Kernel { kernel: kernel.name.clone(), message };
    let mut bytes = vec![0; kernel.interface.uniform_size as usize];
    for member in &kernel.interface.uniforms {
        let value = values.iter().find(|(name, _)| *name == member.name);
        let word = match (value.map(|(_, v)| *v), member.scalar) {
            (Some(Uniform::U32(v)), Scalar::U32) => v.to_le_bytes(),
            (Some(Uniform::F32(v)), Scalar::F32) => v.to_le_bytes(),
            (found, wanted) => {
                return Err(failed(format!(
                    "uniform `{}` is {wanted:?}, given {found:?}",
                    member.name
                )));
            }
        };
        bytes[member.offset as usize..][..4].copy_from_slice(&word);
    }
    if let Some((name, _)) =
        values.iter().find(|(name, _)| !kernel.interface.uniforms.iter().any(|m| m.name == *name))
    {
        return Err(failed(format!("has no uniform `{name}`")));
    }
    Ok(bytes)
}

fn bind(
    gpu: &Gpu,
    kernel: &Kernel,
    given: &[(String, Slice, Scalar)],
    uniforms: &Buffer,
    offset: u64,
) -> Result<wgpu::BindGroup> {
    let failed = |message: String| Error::Kernel { kernel: kernel.name.clone(), message };
    let mut entries = Vec::with_capacity(kernel.interface.bindings.len());
    for binding in &kernel.interface.bindings {
        let resource = if binding.access == Access::Uniform {
            wgpu::BufferBinding {
                buffer: &uniforms.raw,
                offset,
                size: wgpu::BufferSize::new(u64::from(kernel.interface.uniform_size)),
            }
        } else {
            let (_, slice, scalar) = given
                .iter()
                .find(|(name, ..)| *name == binding.name)
                .ok_or_else(|| failed(format!("binding `{}` was not given", binding.name)))?;
            if *scalar != binding.scalar {
                return Err(failed(format!(
                    "binding `{}` has {:?} elements, given {scalar:?}",
                    binding.name, binding.scalar
                )));
            }
            if slice.size > gpu.max_binding() {
                return Err(Error::TooLarge {
                    what: format!("binding `{}` of kernel `{}`", binding.name, kernel.name),
                    needed: format!("{} bytes", slice.size),
                    allowed: format!("{} bytes", gpu.max_binding()),
                    adapter: gpu.name().into(),
                });
            }
            wgpu::BufferBinding {
                buffer: &slice.buffer.raw,
                offset: slice.offset,
                size: wgpu::BufferSize::new(slice.size),
            }
        };
        entries.push(wgpu::BindGroupEntry {
            binding: binding.slot,
            resource: wgpu::BindingResource::Buffer(resource),
        });
    }
    if let Some((name, ..)) =
        given.iter().find(|(name, ..)| !kernel.interface.bindings.iter().any(|b| b.name == *name))
    {
        return Err(failed(format!("has no binding `{name}`")));
    }
    let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
    let descriptor = wgpu::BindGroupDescriptor {
        label: Some(&kernel.name),
        layout: &kernel.layout,
        entries: &entries,
    };
    let group = gpu.device.create_bind_group(&descriptor);
    match pollster::block_on(scope.pop()) {
        Some(error) => Err(failed(error.to_string())),
        None => Ok(group),
    }
}

fn check_grid(gpu: &Gpu, kernel: &Kernel, grid: [u32; 3]) -> Result<()> {
    let most = gpu.limits().max_compute_workgroups_per_dimension;
    if grid.iter().any(|&n| n > most) {
        return Err(Error::Kernel {
            kernel: kernel.name.clone(),
            message: format!("{grid:?} workgroups, the adapter allows {most}"),
        });
    }
    Ok(())
}
