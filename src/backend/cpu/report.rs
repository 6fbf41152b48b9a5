//! What is told of the processor as a device.

use std::time::Instant;

use serde::Serialize;

use super::kernels::matmul::linear;
use super::kernels::weights::{Stored, Weights};
use super::{Cpu, Level};

/// What `mos devices` says of the processor.
#[derive(Clone, Debug, Serialize)]
pub struct CpuReport {
    pub name: String,
    /// Threads that compute.
    pub threads: usize,
    /// Vector instructions that are used.
    pub instructions: &'static str,
    /// Bits of a vector.
    pub vector_bits: usize,
    /// Multiplications and additions of f32 that a matmul does, in 1e9 a second, all threads together.
    pub gflops: f64,
    /// How numbers are held by default.
    pub precision: &'static str,
}

/// As people call it.
pub(super) fn title(level: Level) -> &'static str {
    match level.name() {
        "avx512" => "AVX-512",
        "avx2" => "AVX2",
        "neon" => "NEON",
        _ => "no vector instructions known here",
    }
}

impl CpuReport {
    /// Measures for about a fifth of a second.
    pub fn of(cpu: &Cpu) -> CpuReport {
        CpuReport {
            name: cpu.name.clone(),
            threads: cpu.threads(),
            instructions: title(cpu.level),
            vector_bits: cpu.level.lanes() * 32,
            gflops: gflops(cpu),
            precision: "weights as in the file (f16, bf16 or f32), activations and sums f32",
        }
    }
}

/// The rate of a matmul of the size that networks have.
fn gflops(cpu: &Cpu) -> f64 {
    const EXTENTS: [usize; 3] = [512, 640, 640];
    const LONGEST: f64 = 0.2;
    let [rows, into, out] = EXTENTS;
    let values = |count: usize| -> Vec<f32> { (0..count).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect() };
    cpu.run(|_| {
        let (x, w) = (values(rows * into), values(into * out));
        let weights = Weights::new(Stored::F32(&w), out, into, [1, 1]);
        let mut y = vec![0.0; rows * out];
        let start = Instant::now();
        let mut best = f64::INFINITY;
        while start.elapsed().as_secs_f64() < LONGEST {
            let before = Instant::now();
            linear(cpu.level, &x, &weights, &[], &mut y);
            best = best.min(before.elapsed().as_secs_f64());
        }
        2.0 * (rows * into * out) as f64 / best.max(1e-9) / 1e9
    })
}
