//! Which device tests run on: the processor in the tests of `tests/cpu` and where `MOS_TEST_DEVICE`
//! is `cpu`, else the adapter that each test opens.

use std::sync::{Arc, OnceLock};

use mixofshow::backend::cpu::{Cpu, Options};

/// The processor, where tests are to run on it. `MOS_CPU_LEVEL` holds its instructions down.
pub fn processor() -> Option<Arc<Cpu>> {
    static CPU: OnceLock<Option<Arc<Cpu>>> = OnceLock::new();
    let open = || match std::env::var("MOS_TEST_DEVICE").as_deref() {
        Ok("cpu") => Some(processor_of(None)),
        Err(_) if env!("CARGO_CRATE_NAME") == "cpu" => Some(processor_of(None)),
        Ok("adapter") | Err(_) => None,
        Ok(other) => panic!("MOS_TEST_DEVICE is {other}: expected cpu or adapter"),
    };
    CPU.get_or_init(open).clone()
}

/// The processor with so many threads.
pub fn processor_of(threads: Option<usize>) -> Arc<Cpu> {
    let level = std::env::var("MOS_CPU_LEVEL").ok();
    Cpu::open(&Options { level, threads }).unwrap_or_else(|e| panic!("{e}"))
}
