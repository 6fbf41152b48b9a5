//! What the device can do at most, measured: arithmetic and memory.

use serde::Serialize;

use super::{Clock, Result};
use mixofshow::backend::Device;
use mixofshow::backend::cpu::Cpu;
use mixofshow::backend::wgpu::{Command, Gpu, Params, Recording, Scalar, Slice, Value};

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
    let gpu = &gpu;
    const CHAINS: usize = 2;
    let (groups, rounds) = if gpu.is_software() { (256, 512) } else { (16384, 512) };
    let y = gpu.buffer("peak", groups * 64 * 4)?;
    let arithmetic = Command::Dispatch {
        kernel: "peak",
        params: Params::from([("chains", Value::from(CHAINS))]),
        bindings: vec![("y".into(), Slice::whole(&y), Scalar::F32)],
        uniforms: vec![("rounds", (rounds as usize).into()), ("factor", 0.5f32.into())],
        grid: [groups as u32, 1, 1],
        label: "peak".into(),
        flops: 0,
        bytes: 0,
    };
    let size = gpu.max_binding().min(64 << 20);
    let (from, to) = (gpu.buffer("peak", size)?, gpu.buffer("peak", size)?);
    let copy = Command::Dispatch {
        kernel: "copy",
        params: Params::from([("vector", Value::from(4))]),
        bindings: vec![
            ("x".into(), Slice::whole(&from), Scalar::F32),
            ("y".into(), Slice::whole(&to), Scalar::F32),
        ],
        uniforms: [
            ("rows", 1),
            ("width", size as usize / 16),
            ("from_stride", 0),
            ("from_start", 0),
            ("to_stride", 0),
            ("to_start", 0),
        ]
        .map(|(name, value): (&'static str, usize)| (name, value.into()))
        .to_vec(),
        grid: [32768.min((size / 1024) as u32), (size / 1024).div_ceil(32768) as u32, 1],
        label: "copy".into(),
        flops: 0,
        bytes: 0,
    };
    let fastest = |command: Command| -> Result<f64> {
        let recording = Recording::new(gpu, &[command])?;
        let mut best = f64::INFINITY;
        for _ in 0..4 {
            let start = clock.now();
            recording.play();
            gpu.wait()?;
            best = best.min(clock.now() - start);
        }
        Ok(best)
    };
    let flops = (groups * 64 * rounds) as f64 * (CHAINS * 8 * 16) as f64;
    Ok(Peak {
        gflops: flops / fastest(arithmetic)? * 1e-9,
        gigabytes: 2.0 * size as f64 / fastest(copy)? * 1e-9,
    })
}
