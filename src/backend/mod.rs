//! The seam between graphs and what runs them.
//!
//! A back end says what its plans must keep to ([`Target`]), takes weights as it needs them
//! ([`Backend::weights`]) and compiles a plan to something that is written, run, read, copied and
//! profiled ([`Executable`]). [`Device`], [`Weights`] and [`Program`] are what everything else
//! holds: they check what comes in, so that a back end gets only what fits.
//!
//! Back ends: `wgpu` for graphics cards, `cpu` for the processor, [`mod@reference`] for the
//! operations' reference implementations in plain Rust.

mod choice;
#[cfg(feature = "cpu")]
pub mod cpu;
mod error;
mod precision;
mod program;
#[cfg(any(feature = "cpu", feature = "wgpu"))]
mod quantised;
pub mod reference;
mod replaced;
#[cfg(any(feature = "cpu", feature = "wgpu"))]
mod streaming;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

pub use choice::{Options, PROCESSOR, Selection, open};
pub use error::{Error, Result};
pub use precision::{Precision, Rounding, UnknownPrecision};
pub use program::{Copies, Copy, Input, Program, Weights};
pub use replaced::ReplacedKernel;

use crate::graph::{Graph, ParameterSource, Plan, Target, Tensor};

/// What one operation of a program cost, summed by label.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Runs of operations of this label.
    pub calls: u64,
    /// Time of all of them.
    pub seconds: f64,
    /// Floating-point operations of all of them.
    pub flops: u64,
    /// Bytes read and written, each once a call.
    pub bytes: u64,
}

/// What one command or step of a run took.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The operation, with its kernel where that has another name.
    pub what: String,
    /// The dotted path of its layer.
    pub layer: String,
    /// Of this one.
    pub cost: Cost,
}

/// Looks at the result of a step as it runs: operation, layer, values. False ends the run.
pub type Look<'a> = &'a mut dyn FnMut(&str, &str, &[f32]) -> bool;

/// Something that runs plans.
pub trait Backend: Any + Send + Sync {
    /// As errors call the device.
    fn name(&self) -> &str;

    /// Whether it computes on processor cores, so that what it takes is their time.
    fn is_processor(&self) -> bool;

    /// Whether matmuls with weights in f16 round what they multiply to f16, and are much faster
    /// than others.
    fn rounds_to_f16(&self) -> bool {
        false
    }

    /// Whether gradients through weights in f16 can be made faster by rounding what they multiply
    /// to f16, or why not. The first call may test it.
    ///
    /// # Errors
    /// Why not.
    fn rounds_gradients(self: Arc<Self>) -> Result<(), String> {
        Err("it multiplies in f32".into())
    }

    /// What it rounds to f16 where weights are held so; none where nothing is ever.
    fn rounding(&self) -> Option<Rounding> {
        None
    }

    /// What plans for this device keep to.
    fn target(&self) -> &dyn Target;

    /// Weights of `source` for this device. They are read when a program first needs them.
    fn weights(
        self: Arc<Self>,
        source: Arc<dyn ParameterSource + Send>,
        precision: Precision,
    ) -> Box<dyn WeightStore>;

    /// Copies between programs of this device, to be played any number of times.
    ///
    /// # Errors
    /// Views of another back end.
    fn copies(self: Arc<Self>, copies: &[(View, View)]) -> Result<Box<dyn Fn() + Send + Sync>>;

    /// Bytes of the device's memory in use now, and the most that were in use at one time.
    fn memory(&self) -> [u64; 2];
}

/// Weights as a back end holds them, shared by all programs that use them.
pub trait WeightStore: Send + Sync {
    /// Bytes of the weights that `plan` uses, there already or not.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    fn planned_bytes(&self, graph: &Graph, plan: &Plan) -> Result<u64>;

    /// Gives up every weight whose name is not `wanted`; programs that use it keep theirs.
    fn retain(&self, wanted: &dyn Fn(&str) -> bool);

    /// How the weights of `plan` are held in no more than `within` bytes of the device: those that
    /// do not fit are brought anew in each run, block by block. By default, all of them stay.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    fn held(
        &self,
        graph: &Graph,
        plan: &Plan,
        within: u64,
    ) -> Result<std::result::Result<Held, TooLittle>> {
        let stays = self.planned_bytes(graph, plan)?;
        let held = Held { stays, blocks: 1, ..Held::default() };
        Ok(if stays <= within { Ok(held) } else { Err(TooLittle { least: stays }) })
    }

    /// [`WeightStore::compile`] with weights held as [`WeightStore::held`] says. What comes of a
    /// run is the same, bit for bit.
    ///
    /// # Errors
    /// As of [`WeightStore::compile`]; a budget that is too small.
    fn compile_within(
        &self,
        graph: &Graph,
        plan: &Plan,
        _within: u64,
    ) -> Result<Box<dyn Executable>> {
        self.compile(graph, plan)
    }

    /// Bytes that can be brought to the device in a second, measured with weights of `plan`; none
    /// where nothing ever comes and goes.
    ///
    /// # Errors
    /// Weights that cannot be read.
    fn rate(&self, _graph: &Graph, _plan: &Plan) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Gives up all weights on the device, but not what the host keeps so that they come back
    /// quicker; programs keep theirs.
    fn rest(&self) {
        self.retain(&|_| false);
    }

    /// Makes a plan ready to run, with the weights that it needs.
    ///
    /// # Errors
    /// Operations that the back end cannot run as planned; weights that are missing; memory that is
    /// exhausted.
    fn compile(&self, graph: &Graph, plan: &Plan) -> Result<Box<dyn Executable>>;
}

/// How the weights of a program are held where not all of them stay: in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Of the weights that stay on the device.
    pub stays: u64,
    /// Of the places for those that come and go.
    pub places: u64,
    /// Of what is brought to the device in each run.
    pub streamed: u64,
    /// Blocks in which a run goes.
    pub blocks: usize,
    /// Of main memory that a program takes for what comes and goes.
    pub host: u64,
}

impl Held {
    /// Of the device, for weights.
    pub fn bytes(&self) -> u64 {
        self.stays + self.places
    }
}

/// A budget that is too small for weights, and the least that would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittle {
    /// In bytes.
    pub least: u64,
}

/// A compiled plan.
pub trait Executable: Send + Sync {
    /// The graph's input `tensor`; none if it is not an input.
    fn input(&self, tensor: Tensor) -> Option<View>;

    /// Output `index` of the plan.
    fn output(&self, index: usize) -> View;

    /// Writes `bytes`, as many as the view has, before the next run.
    fn write(&self, view: &View, bytes: &[u8]);

    /// The bytes of a view, once everything that was started is done.
    ///
    /// # Errors
    /// A device that failed.
    fn read(&self, view: &View) -> Result<Vec<u8>>;

    /// Starts a run; may return before it is done.
    fn run(&self);

    /// Waits for what was started.
    ///
    /// # Errors
    /// A device that failed since the last call.
    fn wait(&self) -> Result<()>;

    /// Runs step by step and shows the result of each, with whatever was folded into it. Where
    /// `look` ends the run, inputs have not taken their new values.
    ///
    /// # Errors
    /// A device that failed.
    fn trace(&self, look: Look<'_>) -> Result<()>;

    /// Runs step by step and sums costs by operation. `clock` gives seconds.
    ///
    /// # Errors
    /// A device that failed.
    fn profile(&self, clock: &dyn Fn() -> f64) -> Result<HashMap<String, Cost>>;

    /// Runs step by step and tells what each took, in order; where steps are not known, operation
    /// by operation. `clock` gives seconds.
    ///
    /// # Errors
    /// A device that failed.
    fn timeline(&self, clock: &dyn Fn() -> f64) -> Result<Vec<Timed>> {
        let costs = self.profile(clock)?;
        let timed = |(what, cost)| Timed { what, layer: String::new(), cost };
        Ok(costs.into_iter().map(timed).collect())
    }

    /// Floating-point operations of a run.
    fn flops(&self) -> u64;

    /// Bytes that a run reads and writes, each once an operation.
    fn bytes(&self) -> u64;

    /// Dispatches and copies of a run.
    fn commands(&self) -> usize;
}

/// A tensor in a program's memory: what that is, only its back end knows.
#[derive(Clone)]
pub struct View(Arc<dyn Any + Send + Sync>);

impl View {
    pub(crate) fn new(place: impl Any + Send + Sync) -> View {
        View(Arc::new(place))
    }

    pub(crate) fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

/// A device that runs plans. Cheap to clone.
#[derive(Clone)]
pub struct Device(Arc<dyn Backend>);

impl Device {
    /// The device of a back end of one's own. [`Arc`]s of this crate's turn into devices by
    /// themselves ([`From`]).
    pub fn new(backend: Arc<dyn Backend>) -> Device {
        Device(backend)
    }

    /// The best graphics card, else the processor, as far as their back ends are compiled in.
    ///
    /// # Errors
    /// As those of [`open`].
    pub fn best() -> Result<Device> {
        Device::open(&Selection::Best)
    }

    /// The device that is selected, with each back end's usual settings; [`open`] takes others.
    ///
    /// # Errors
    /// As those of [`open`].
    pub fn open(selection: &Selection) -> Result<Device> {
        open(selection, &Options::default())
    }

    /// As errors and `mos devices` call it.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Whether it computes on processor cores, so that what it takes is their time.
    pub fn is_processor(&self) -> bool {
        self.0.is_processor()
    }

    /// Whether matmuls with weights in f16 round what they multiply to f16, and are much faster
    /// than others.
    pub fn rounds_to_f16(&self) -> bool {
        self.0.rounds_to_f16()
    }

    /// Whether gradients through weights in f16 can be made faster by rounding what they multiply
    /// to f16. The first call may test it.
    ///
    /// # Errors
    /// Why not.
    pub fn rounds_gradients(&self) -> Result<(), String> {
        self.0.clone().rounds_gradients()
    }

    /// What it rounds to f16 where weights are held so; none where nothing is ever, as on the
    /// processor.
    pub fn rounding(&self) -> Option<Rounding> {
        self.0.rounding()
    }

    /// What plans for this device keep to.
    pub fn target(&self) -> &dyn Target {
        self.0.target()
    }

    /// Bytes that one tensor may have.
    pub fn max_binding(&self) -> u64 {
        self.target().limits().max_binding
    }

    /// Bytes of the device's memory in use now, and the most that were in use at one time.
    pub fn memory(&self) -> [u64; 2] {
        self.0.memory()
    }

    /// The back end, where it is of type `T`.
    pub fn backend<T: Backend>(&self) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = self.0.clone();
        any.downcast().ok()
    }
}

impl<T: Backend> From<Arc<T>> for Device {
    fn from(backend: Arc<T>) -> Device {
        Device(backend)
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.name())
    }
}
