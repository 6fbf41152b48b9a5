//! Kernels measured in turns at the same shapes, beside what the machine can do at most.

use std::rc::Rc;
use std::sync::Arc;

use naga::Module;
use serde::Serialize;

use super::compare::Found;
use super::device::{Bound, Content, Pipeline};
use super::error::{Error, Result};
use super::interface::{Interface, decoded, overrides};
use super::on_device::{contents, too_much_memory};
use super::source::{Settings, Source};
use super::spec::{Fill, Reference, Shape, Spec};
use super::statistics::{Difference, ENOUGH, part_of, quantile};
use super::trial::{Trial, Unfit, interface, tolerance};
use super::trust::{Trust, trust};
use crate::backend::wgpu::Gpu;

/// How kernels are measured.
#[derive(Clone, Copy, Debug)]
pub struct BenchOptions {
    /// Measurements of each kernel at each shape.
    pub rounds: usize,
    /// With the bounds checks that wgpu adds.
    pub checked: bool,
    /// Caches are filled with something else before each measurement.
    pub cold: bool,
    /// Seconds that a measurement should last at least: short ones are repeated within it.
    pub least: f64,
}

impl Default for BenchOptions {
    fn default() -> BenchOptions {
        BenchOptions { rounds: 63, checked: false, cold: false, least: 0.005 }
    }
}

/// What a machine can do at most, measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Roofline {
    /// Floating-point operations a second, by chains of multiply-adds.
    pub flops: f64,
    /// Bytes a second, by a large copy.
    pub bytes: f64,
    /// Seconds of a dispatch that does nothing.
    pub launch: f64,
}

impl Roofline {
    /// Seconds that so much work takes at least.
    pub fn seconds(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops).max(bytes / self.bytes) + self.launch
    }
}

/// One kernel at one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The kernel's file or name.
    pub kernel: String,
    /// Sizes by name.
    pub sizes: String,
    /// Seconds of each measurement, in order.
    pub samples: Vec<f64>,
    /// The median of them.
    pub median: f64,
    /// A fifth was faster.
    pub p20: f64,
    /// A fifth was slower.
    pub p80: f64,
    /// Floating-point operations of the kind at these sizes.
    pub flops: f64,
    /// Bytes of all tensors, each once.
    pub bytes: f64,
    /// Share of what the machine can do: the time that the work takes at least over the median.
    pub roofline: f64,
    /// The worst error at some rows, relative to what it may be: wrong above 1.
    pub error: f64,
    /// Beside the first kernel at this shape.
    pub difference: Option<Difference>,
}

/// All that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The adapter.
    pub adapter: String,
    /// What times are taken by: a timestamp of the device, or the caller's clock.
    pub clock: String,
    /// Whether caches were filled with something else before each measurement.
    pub cold: bool,
    /// Whether bounds were checked of all kernels.
    pub checked: bool,
    /// Of the machine.
    pub peak: Roofline,
    /// Shape by shape, kernel by kernel.
    pub measured: Vec<Measured>,
    /// What was left out, and why.
    pub notes: Vec<String>,
}

/// A clock: its name, and seconds since some moment.
pub struct Clock<'a> {
    /// As reports call it.
    pub name: &'a str,
    /// Seconds.
    pub now: &'a dyn Fn() -> f64,
}

/// A kernel with values of its parameters.
#[derive(Clone, Debug)]
pub struct Contender {
    /// The kernel.
    pub source: Source,
    /// Those that are not the header's first.
    pub settings: Settings,
}

impl Contender {
    /// As tables call it.
    pub fn name(&self) -> String {
        if self.settings.is_empty() {
            return self.source.name.clone();
        }
        let each = self.settings.iter().map(|(name, value)| format!("{name}={value}"));
        format!("{} {}", self.source.name, each.collect::<Vec<_>>().join(" "))
    }
}

/// One contender at one shape: all that a device needs of it.
pub(super) struct Prepared {
    name: String,
    module: Module,
    /// With the bounds checks that wgpu adds.
    checked: bool,
    trial: Trial,
    interface: Interface,
    contents: Vec<Content>,
}

/// One contender at one shape, compiled and bound.
pub(super) struct Ready {
    prepared: Rc<Prepared>,
    pipeline: Pipeline,
    bound: Bound,
    /// Dispatches of one measurement.
    pub times: usize,
}

impl Ready {
    /// Compiles, and fills buffers.
    fn new(gpu: &Arc<Gpu>, prepared: &Rc<Prepared>, times: usize) -> Result<Ready, String> {
        let Prepared { name, module, checked, trial, interface, contents } = &**prepared;
        let constants = overrides(&trial.numbers);
        let pipeline = Pipeline::new(gpu, name, module, interface, &constants, *checked)?;
        let bound = pipeline.bind(interface, contents)?;
        Ok(Ready { prepared: prepared.clone(), pipeline, bound, times })
    }

    /// The same, its code and its buffers at other places of the machine's memory.
    fn anew(&self, gpu: &Arc<Gpu>) -> Result<Ready> {
        Ready::new(gpu, &self.prepared, self.times)
            .map_err(|message| Error::Kernel { kernel: self.prepared.name.clone(), message })
    }
}

/// The machine's own speed.
///
/// # Errors
/// A device that failed.
pub fn roofline(gpu: &Arc<Gpu>, clock: &Clock<'_>) -> Result<Roofline> {
    let [flops, bytes] = gpu.rates(clock.now)?;
    let text = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(1) fn main() { y[0] = 1.0; }";
    let failed = |message: String| Error::Kernel { kernel: "an empty dispatch".into(), message };
    let module = naga::front::wgsl::parse_str(text).map_err(|e| failed(e.message().into()))?;
    let interface = Interface::of(&module).map_err(|problem| failed(problem.what))?;
    let none = Default::default();
    let pipeline = Pipeline::new(gpu, "empty", &module, &interface, &none, true).map_err(failed)?;
    let content = Content { name: "y".into(), bytes: vec![0; 16], uniform: false };
    let bound = pipeline.bind(&interface, &[content]).map_err(failed)?;
    const MANY: usize = 256;
    let mut launch = f64::INFINITY;
    for _ in 0..6 {
        let start = (clock.now)();
        pipeline.submit(&bound, [1, 1, 1], MANY, None);
        gpu.wait()?;
        launch = launch.min(((clock.now)() - start) / MANY as f64);
    }
    Ok(Roofline { flops, bytes, launch })
}

/// Parts of the rounds, each with code and buffers of its own.
const PARTS: usize = 3;

/// Makes a contender ready at a shape.
pub(super) fn ready(
    gpu: &Arc<Gpu>,
    contender: &Contender,
    spec: &Spec,
    sizes: &[usize],
    checked: bool,
) -> Result<Result<Ready, String>> {
    let source = &contender.source;
    let wgsl = source.wgsl(&contender.settings)?;
    let failed = |message: String| source.failed(message);
    let module: Module = naga::front::wgsl::parse_str(&wgsl.text)
        .map_err(|error| failed(error.message().to_string()))?;
    let interface = interface(source, spec, &contender.settings, &wgsl, &module)?;
    let shape =
        Shape { label: String::new(), sizes: sizes.to_vec(), fill: Fill::Ordinary, huge: true };
    let trial = match Trial::new(source, spec, &contender.settings, &interface, &shape) {
        Ok(trial) if trial.sizes == sizes => trial,
        Ok(_) => return Ok(Err(format!("the header needs {}", source.needs()))),
        Err(Unfit::Needs(why)) => return Ok(Err(why)),
        Err(Unfit::Failed(error)) => return Err(error),
    };
    let most = gpu.limits().max_compute_workgroups_per_dimension;
    if trial.grid.iter().any(|&count| count > most) {
        return Ok(Err(format!("{:?} workgroups, the device allows {most}", trial.grid)));
    }
    if let Some(why) = too_much_memory(gpu, &wgsl.text, &trial) {
        return Ok(Err(why));
    }
    let contents = contents(&interface, spec, &trial).map_err(failed)?;
    let name = source.name.clone();
    let prepared = Prepared { name, module, checked, trial, interface, contents };
    Ok(Ready::new(gpu, &Rc::new(prepared), 1))
}

/// Bytes that are more than caches hold.
const CACHES: u64 = 256 << 20;

/// How times are taken.
pub(super) struct Timer<'a> {
    gpu: Arc<Gpu>,
    clock: &'a Clock<'a>,
    /// Where the device tells times itself.
    queries: Option<(wgpu::QuerySet, wgpu::Buffer, wgpu::Buffer)>,
    cold: Option<wgpu::Buffer>,
}

impl<'a> Timer<'a> {
    pub fn new(gpu: &Arc<Gpu>, clock: &'a Clock<'a>, cold: bool) -> Timer<'a> {
        let (device, _) = gpu.raw();
        let buffer = |size, usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        use wgpu::BufferUsages as Usage;
        // A software driver's own clock runs on while others have its cores.
        let told = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let queries = (told && !gpu.is_software()).then(|| {
            let set = device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            });
            let resolved = buffer(256, Usage::QUERY_RESOLVE | Usage::COPY_SRC);
            (set, resolved, buffer(16, Usage::COPY_DST | Usage::MAP_READ))
        });
        let size = CACHES.min(device.limits().max_buffer_size);
        let cold = cold.then(|| buffer(size, Usage::STORAGE | Usage::COPY_DST));
        Timer { gpu: gpu.clone(), clock, queries, cold }
    }

    pub fn name(&self) -> String {
        match self.queries {
            Some(_) => "timestamps of the device".into(),
            None => self.clock.name.to_string(),
        }
    }

    /// Seconds of one dispatch, of so many in a row.
    pub fn time(&self, ready: &Ready, times: usize) -> Result<f64> {
        if let Some(buffer) = &self.cold {
            let (device, queue) = self.gpu.raw();
            let mut encoder = device.create_command_encoder(&Default::default());
            encoder.clear_buffer(buffer, 0, None);
            queue.submit([encoder.finish()]);
            self.gpu.wait()?;
        }
        let grid = ready.prepared.trial.grid;
        let start = (self.clock.now)();
        let set = self.queries.as_ref().map(|(set, ..)| set);
        ready.pipeline.submit(&ready.bound, grid, times, set);
        self.gpu.wait()?;
        let elapsed = (self.clock.now)() - start;
        // Some devices leave zeros.
        let told = self.told()?.filter(|seconds| *seconds > 0.0);
        Ok(told.unwrap_or(elapsed) / times as f64)
    }

    fn told(&self) -> Result<Option<f64>> {
        let Some((set, resolved, staging)) = &self.queries else { return Ok(None) };
        let (device, queue) = self.gpu.raw();
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.resolve_query_set(set, 0..2, resolved, 0);
        encoder.copy_buffer_to_buffer(resolved, 0, staging, 0, 16);
        queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        self.gpu.wait()?;
        let ticks = staging.slice(..).get_mapped_range().ok().map(|range| {
            let word = |at: usize| {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&range[at..at + 8]);
                u64::from_le_bytes(bytes)
            };
            word(8).saturating_sub(word(0))
        });
        staging.unmap();
        let period = f64::from(queue.get_timestamp_period());
        Ok(ticks.map(|ticks| ticks as f64 * period * 1e-9))
    }

    /// Runs until times are steady, and settles how many dispatches make one measurement.
    pub fn warm_up(&self, ready: &mut Ready, least: f64) -> Result<()> {
        let mut last = self.time(ready, 1)?;
        for _ in 0..8 {
            let now = self.time(ready, 1)?;
            let steady = (now / last - 1.0).abs() < 0.1;
            last = now;
            if steady {
                break;
            }
        }
        ready.times = repeats(last, least, self.cold.is_some());
        Ok(())
    }
}

/// Dispatches of one measurement, of which one takes so long; caches are cold for the first alone.
fn repeats(seconds: f64, least: f64, cold: bool) -> usize {
    if cold { 1 } else { ((least / seconds.max(1e-9)).ceil() as usize).clamp(1, 256) }
}

/// Measures kernels in turns at each shape.
///
/// # Errors
/// A kernel that cannot be run, a device that failed; `tell` that says no.
pub fn bench(
    gpu: &Arc<Gpu>,
    contenders: &[Contender],
    spec: &Spec,
    shapes: &[Vec<usize>],
    options: &BenchOptions,
    clock: &Clock<'_>,
    tell: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<BenchReport> {
    let timer = Timer::new(gpu, clock, options.cold);
    let peak = roofline(gpu, clock)?;
    let mut report = BenchReport {
        adapter: gpu.name().into(),
        clock: timer.name(),
        cold: options.cold,
        checked: options.checked,
        peak,
        measured: Vec::new(),
        notes: Vec::new(),
    };
    let of = shapes.len() * options.rounds;
    for (number, sizes) in shapes.iter().enumerate() {
        let told = spec.told(sizes);
        let mut all = Vec::new();
        for contender in contenders {
            let trust = trust(&contender.source, &contender.settings, spec, sizes)?;
            let checked = options.checked || trust == Trust::None;
            match ready(gpu, contender, spec, sizes, checked)? {
                Ok(ready) => {
                    if let (false, Some(why)) = (options.checked, trust.told()) {
                        report.notes.push(format!("{} at {told}: {why}", contender.name()));
                    }
                    all.push((contender, ready, Vec::new()));
                }
                Err(why) => {
                    report.notes.push(format!("left out: {} at {told}: {why}", contender.name()));
                }
            }
        }
        for (_, ready, _) in &mut all {
            timer.warm_up(ready, options.least)?;
        }
        // The first one once more, compiled and bound on its own: how far a kernel stands from
        // itself is the noise.
        let mut twin = match &all[..] {
            [(_, first, _), _, ..] => Some(first.anew(gpu)?),
            _ => None,
        };
        let mut again = Vec::new();
        let parts = if options.rounds < 3 * ENOUGH { 1 } else { PARTS };
        for round in 0..options.rounds {
            // Where code and buffers happen to lie makes a kernel a little slower or faster.
            if round > 0
                && part_of(round, options.rounds, parts) > part_of(round - 1, options.rounds, parts)
            {
                for ready in all.iter_mut().map(|(_, ready, _)| ready).chain(&mut twin) {
                    *ready = ready.anew(gpu)?;
                    timer.time(ready, ready.times)?;
                }
            }
            if !tell(number * options.rounds + round, of) {
                return Err(Error::Cancelled);
            }
            // Each goes first as often as any other: what warms the next one warms all alike.
            let count = all.len() + usize::from(twin.is_some());
            for step in 0..count {
                let forth = (round / count.max(1)) % 2 == 0;
                let step = if forth { step } else { count - 1 - step };
                match (step + round) % count {
                    turn if turn < all.len() => {
                        let (_, ready, samples) = &mut all[turn];
                        samples.push(timer.time(ready, ready.times)?);
                    }
                    _ => {
                        if let Some(ready) = &twin {
                            again.push(timer.time(ready, ready.times)?);
                        }
                    }
                }
            }
        }
        let first = all.first().map(|(_, _, samples)| samples.clone());
        for (index, (contender, ready, samples)) in all.into_iter().enumerate() {
            let other = first.as_ref().filter(|_| index > 0);
            let error = error_of(gpu, spec, &contender.source, &ready)?;
            let one = measured(spec, contender, &ready, samples, &peak);
            let difference =
                other.map(|other| Difference::beside(&one.samples, other, &again, parts));
            report.measured.push(Measured { difference, error, ..one });
        }
    }
    if report.measured.is_empty() {
        return Err(Error::Kernel {
            kernel: contenders.first().map_or_else(String::new, Contender::name),
            message: format!("none of the shapes suits it: {}", report.notes.join("; ")),
        });
    }
    Ok(report)
}

fn measured(
    spec: &Spec,
    contender: &Contender,
    ready: &Ready,
    samples: Vec<f64>,
    peak: &Roofline,
) -> Measured {
    let Prepared { trial, contents, .. } = &*ready.prepared;
    let sizes = &trial.sizes;
    let flops = spec.flops_of(sizes);
    let bytes = contents.iter().filter(|content| !content.uniform);
    let bytes = bytes.map(|content| content.bytes.len() as f64).sum();
    let median = quantile(&samples, 0.5);
    Measured {
        kernel: contender.name(),
        sizes: spec.told(sizes),
        median,
        p20: quantile(&samples, 0.2),
        p80: quantile(&samples, 0.8),
        flops,
        bytes,
        roofline: peak.seconds(flops, bytes) / median,
        error: 0.0,
        difference: None,
        samples,
    }
}

/// What a run leaves beside the reference, at some rows: the worst error of what is allowed.
pub(super) fn error_of(gpu: &Arc<Gpu>, spec: &Spec, source: &Source, ready: &Ready) -> Result<f64> {
    const ROWS: usize = 6;
    let failed = |message: String| source.failed(message);
    if matches!(spec.reference, Reference::Kernel(_)) {
        return Ok(0.0);
    }
    let Prepared { trial, interface, contents, .. } = &*ready.prepared;
    ready.pipeline.refill(&ready.bound, contents);
    ready.pipeline.submit(&ready.bound, trial.grid, 1, None);
    gpu.wait()?;
    let mut worst: f64 = 0.0;
    for (index, tensor) in spec.outputs().enumerate() {
        let Some(bound) = interface.find(&tensor.name) else { continue };
        let extents = spec.extents(tensor, &trial.sizes);
        let width = extents.last().copied().unwrap_or(1).max(1);
        let elements = spec.elements(tensor, &trial.sizes);
        let count = elements / width;
        let rows: Vec<usize> = match count <= ROWS {
            true => (0..count).collect(),
            false => (0..ROWS).map(|i| i * (count - 1) / (ROWS - 1)).collect(),
        };
        let (bytes, _) = ready.pipeline.read(&ready.bound, &tensor.name).map_err(failed)?;
        let expected = spec.expected(index, &trial.sizes, &trial.inputs(), &rows)?;
        let values = decoded(&bytes, bound.stored, tensor.element, elements);
        let found = Found {
            name: &tensor.name,
            extents: &extents,
            rows: &rows,
            expected: &expected,
            values: &values,
            written: None,
            in_part: false,
        };
        let tolerance = tolerance(source, spec, interface, &trial.sizes);
        let verdict = found.verdict(tolerance);
        worst = worst.max(verdict.worst.map_or(0.0, |worst| worst.share));
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::repeats;

    #[test]
    fn what_finds_cold_caches_runs_once() {
        assert_eq!((repeats(0.001, 0.005, false), repeats(0.001, 0.005, true)), (5, 1));
        assert_eq!((repeats(0.0, 0.005, false), repeats(1.0, 0.005, false)), (256, 1));
    }
}
