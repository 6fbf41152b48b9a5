//! What the device can do at most, measured: arithmetic and memory.

use serde::Serialize;

use super::{Clock, Result};
use mixofshow::backend::Device;
use mixofshow::backend::cpu::Cpu;
use mixofshow::backend::wgpu::Gpu;

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Peak {
    pub gflops: f64,
    pub gigabytes: f64,
}

impl Peak {
    pub fn describe(&self, gpu: &Device, clock: Clock) -> String {
        let clock = match clock {
            Clock::Wall => "elapsed",
            Clock::Cpu => "CPU",
        };
        format!(
            "{}: {:.0} GFLOP/s, {:.1} GB/s at most ({clock} time)",
            gpu.name(),
            self.gflops,
            self.gigabytes
        )
    }
}

/// Chains of fma (on the processor matmuls) and a large copy, the fastest of several each.
pub fn measure(device: &Device, clock: Clock) -> Result<Peak> {
    if let Some(cpu) = device.backend::<Cpu>() {
        let [gflops, gigabytes] = cpu.rates(&|| clock.now()).map(|rate| rate * 1e-9);
        return Ok(Peak { gflops, gigabytes });
    }
    let Some(gpu) = device.backend::<Gpu>() else { return Ok(Peak::default()) };
    let [gflops, gigabytes] = gpu.rates(&|| clock.now())?.map(|rate| rate * 1e-9);
    Ok(Peak { gflops, gigabytes })
}
