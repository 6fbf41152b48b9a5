//! Which device tests run on. `MOS_TEST_DEVICE` says `cpu` or `adapter` for all of them. Without
//! it, tests of graphics kernels run on the adapter (and again on the processor, in `tests/cpu`),
//! tests of networks, pictures, tuning and fusion where the program itself would run: on a graphics
//! card, else on the processor, since software drivers for graphics are slow; and a few of each on
//! the adapter that is there. `MOS_ADAPTER` names an adapter.

use std::sync::{Arc, OnceLock};

use mixofshow::backend::Device;
use mixofshow::backend::cpu::{Cpu, Options};
use mixofshow::backend::wgpu::{self, Gpu, Selection};

/// What `MOS_TEST_DEVICE` says: whether it is the processor.
fn named() -> Option<bool> {
    match std::env::var("MOS_TEST_DEVICE").as_deref() {
        Ok("cpu") => Some(true),
        Ok("adapter") => Some(false),
        Err(_) => None,
        Ok(other) => panic!("MOS_TEST_DEVICE is {other}: expected cpu or adapter"),
    }
}

/// The processor, where tests of kernels are to run on it. `MOS_CPU_LEVEL` holds its instructions
/// down.
pub fn processor() -> Option<Arc<Cpu>> {
    static CPU: OnceLock<Option<Arc<Cpu>>> = OnceLock::new();
    let wanted = || named().unwrap_or(env!("CARGO_CRATE_NAME") == "cpu");
    CPU.get_or_init(|| wanted().then(|| processor_of(None))).clone()
}

/// The processor with so many threads.
pub fn processor_of(threads: Option<usize>) -> Arc<Cpu> {
    let level = std::env::var("MOS_CPU_LEVEL").ok();
    Cpu::open(&Options { level, threads }).unwrap_or_else(|e| panic!("{e}"))
}

/// The adapter that `MOS_ADAPTER` names, else the best, of whatever kind.
pub fn adapter(options: wgpu::Options) -> Arc<Gpu> {
    let selection = std::env::var("MOS_ADAPTER").map_or(Selection::Best, Selection::Matching);
    Gpu::open(&wgpu::Options { selection, ..options }).expect("an adapter")
}

/// A device for networks and what is made of them, opened anew.
pub fn device(options: wgpu::Options) -> Device {
    let named = named().or(std::env::var_os("MOS_ADAPTER").map(|_| false));
    let card = || Gpu::open(&wgpu::Options { selection: Selection::Card, ..options.clone() });
    match named {
        Some(true) => processor_of(None).into(),
        Some(false) => adapter(options).into(),
        None => match card() {
            Ok(gpu) => gpu.into(),
            Err(wgpu::Error::NoAdapter { .. }) => processor_of(None).into(),
            Err(error) => panic!("{error}"),
        },
    }
}
