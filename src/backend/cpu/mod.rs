//! The back end for the processor: no driver, no device memory, the same plan on all cores.
//!
//! Kernels are pure functions over slices ([`cpu_kernels`]); an operation says how it uses them
//! (`ops`); a program gives memory out once and then only runs (`program`). The same bytes come
//! of any number of threads.

mod compiled;
mod compute;
mod error;
mod layout;
mod lower;
mod memory;
mod ops;
mod packed;
mod program;
mod report;
mod store;
mod streamed;
mod task;
mod uses;
mod weights;

use std::sync::Arc;

pub use cpu_kernels::simd::Level;
pub use error::Error;
pub use report::CpuReport;

use super::{Backend, Precision, View, WeightStore};
use crate::graph::{ParameterSource, Target};
use lower::Traits;
use memory::{Span, Turn, Turns, Usage};

/// How the processor is used.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Vector instructions, one of [`Level::NAMES`], if not the best that the processor has.
    pub level: Option<String>,
    /// Threads, if not one for each core (or as many as the environment variable RAYON_NUM_THREADS
    /// says).
    pub threads: Option<usize>,
}

/// The processor. Cheap to share behind an [`Arc`].
pub struct Cpu {
    name: String,
    level: Level,
    pool: rayon::ThreadPool,
    turns: Turns,
    usage: Arc<Usage>,
    traits: Traits,
}

impl Cpu {
    /// # Errors
    /// Instructions that the processor has not, or that are unknown; threads that the system does
    /// not give.
    pub fn open(options: &Options) -> Result<Arc<Cpu>, Error> {
        let level = level(options.level.as_deref())?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads(options.threads)?)
            .thread_name(|number| format!("compute {number}"))
            .build()
            .map_err(|error| Error::Threads(error.to_string()))?;
        // What kernels keep for each thread, so that no step allocates.
        pool.install(cpu_kernels::parallel::reserve);
        // Without the number of threads, which changes nothing in what is computed.
        let name = format!("cpu ({})", report::title(level));
        Ok(Arc::new(Cpu {
            name,
            level,
            pool,
            turns: Turns::default(),
            usage: Arc::default(),
            traits: Traits { memory: memory::of_machine() },
        }))
    }

    /// The vector instructions in use.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Those that compute.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    fn usage(&self) -> &Arc<Usage> {
        &self.usage
    }

    fn turn(&self) -> Turn<'_> {
        self.turns.take()
    }

    /// Does `work` on the threads of this device.
    fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        if rayon::current_thread_index().is_none() {
            return self.pool.install(work);
        }
        // A thread of another pool would do that pool's work while it waits, which may want this
        // device too.
        std::thread::scope(|scope| match scope.spawn(|| self.pool.install(work)).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Does `work` on the threads of this device, when its turn has come.
    fn run<R: Send>(&self, work: impl FnOnce(&Turn<'_>) -> R + Send) -> R {
        let turn = self.turn();
        self.install(|| work(&turn))
    }
}

fn level(wanted: Option<&str>) -> Result<Level, Error> {
    let Some(wanted) = wanted else { return Ok(Level::best()) };
    let level =
        Level::up_to(wanted).ok_or_else(|| Error::UnknownLevel { wanted: wanted.into() })?;
    if level.name() == wanted {
        Ok(level)
    } else {
        Err(Error::MissingLevel { wanted: wanted.into(), best: Level::best().name() })
    }
}

/// The environment variable that gives the number of threads.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// How many threads are wanted; 0 is one for each core.
fn threads(wanted: Option<usize>) -> Result<usize, Error> {
    let given = std::env::var_os(THREADS_VARIABLE).filter(|text| !text.is_empty());
    let (Some(given), None) = (given, wanted) else { return Ok(wanted.unwrap_or(0)) };
    let number = given.to_str().and_then(|text| text.trim().parse().ok());
    number.filter(|&number: &usize| number <= MOST_THREADS).ok_or_else(|| Error::ThreadCount {
        variable: THREADS_VARIABLE,
        found: given.to_string_lossy().into_owned(),
        most: MOST_THREADS,
    })
}

/// More than any machine has cores.
const MOST_THREADS: usize = 1024;

impl Backend for Cpu {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_processor(&self) -> bool {
        true
    }

    fn target(&self) -> &dyn Target {
        &self.traits
    }

    fn weights(
        self: Arc<Self>,
        source: Arc<dyn ParameterSource + Send>,
        precision: Precision,
    ) -> Box<dyn WeightStore> {
        Box::new(Arc::new(weights::Weights::new(self, source, precision)))
    }

    fn copies(
        self: Arc<Self>,
        copies: &[(View, View)],
    ) -> super::Result<Box<dyn Fn() + Send + Sync>> {
        let span = |view: &View| view.get::<Span>().cloned().ok_or(super::Error::OtherDevice);
        let pairs = copies.iter().map(|(from, to)| Ok((span(from)?, span(to)?)));
        let pairs: Vec<(Span, Span)> = pairs.collect::<super::Result<_>>()?;
        Ok(Box::new(move || {
            let turn = self.turn();
            pairs.iter().for_each(|(from, to)| from.copy_to(to, &turn));
        }))
    }

    fn memory(&self) -> [u64; 2] {
        self.usage.now_and_peak()
    }
}
