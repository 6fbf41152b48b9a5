//! What is told of the processor as a device.

use std::time::Instant;

use serde::Serialize;

use super::{Cpu, Level};
use cpu_kernels::elementwise::copy;
use cpu_kernels::matmul::linear;
use cpu_kernels::weights::{Stored, Weights};

/// What `mos devices` says of the processor.
#[derive(Clone, Debug, Serialize)]
pub struct CpuReport {
    /// As the system calls the processor.
    pub name: String,
    /// Threads that compute.
    pub threads: usize,
    /// Vector instructions that are used.
    pub instructions: &'static str,
    /// Bits of a vector.
    pub vector_bits: usize,
    /// Multiplications and additions of f32 that a matmul does, in 1e9 a second, all threads
    /// together.
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
        let start = Instant::now();
        let [flops, _] = cpu.rates(&|| start.elapsed().as_secs_f64());
        CpuReport {
            name: cpu.name.clone(),
            threads: cpu.threads(),
            instructions: title(cpu.level),
            vector_bits: cpu.level.lanes() * 32,
            gflops: flops / 1e9,
            precision: "weights as in the file (f16, bf16 or f32), activations and sums f32",
        }
    }
}

impl Cpu {
    /// Floating-point operations a second of matmuls as networks have them, and bytes a second of a
    /// large copy, by `clock`, which gives seconds.
    pub fn rates(&self, clock: &dyn Fn() -> f64) -> [f64; 2] {
        const EXTENTS: [usize; 3] = [512, 640, 640];
        const COPIED: usize = 16 << 20;
        let [rows, into, out] = EXTENTS;
        let values = |count: usize| -> Vec<f32> {
            (0..count).map(|i| (i % 17) as f32 / 17.0 - 0.5).collect()
        };
        let (x, w, from) = (values(rows * into), values(into * out), values(COPIED));
        let weights = self.install(|| Weights::new(Stored::F32(&w), out, into, [1, 1]));
        let (mut y, mut to) = (vec![0.0; rows * out], vec![0.0; COPIED]);
        let matmul = fastest(clock, || self.run(|_| linear(self.level, &x, &weights, &[], &mut y)));
        let moved =
            fastest(clock, || self.run(|_| copy(&from, &mut to, 1, COPIED, [0; 2], [0; 2])));
        [2.0 * (rows * into * out) as f64 / matmul, 8.0 * COPIED as f64 / moved]
    }
}

/// Seconds of the fastest of the calls that a tenth of a second holds.
fn fastest(clock: &dyn Fn() -> f64, mut call: impl FnMut()) -> f64 {
    const LONG: f64 = 0.1;
    let (start, mut best) = (clock(), f64::INFINITY);
    loop {
        let before = clock();
        call();
        let after = clock();
        best = best.min(after - before);
        if after - start >= LONG {
            return best.max(1e-9);
        }
    }
}
