//! A kernel of one's own, in WGSL, on a graphics card (or a software driver of one).
//!
//!     cargo run --release --example own_kernel

use std::error::Error;

use mixofshow::backend::wgpu::{Command, Gpu, Options, Recording, Scalar, Slice, Uniform};

/// y = scale x. Bindings and uniforms are known by their names.
const KERNEL: &str = "
struct Uniforms { scale: f32 }

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&y)) {
        y[id.x] = uniforms.scale * x[id.x];
    }
}
";

fn main() -> Result<(), Box<dyn Error>> {
    run().map(drop)
}

pub fn run() -> Result<Vec<f32>, Box<dyn Error>> {
    // A device that your program has opened already does as well: `Gpu::from_host`.
    let gpu = Gpu::open(&Options::default())?;
    gpu.add_kernel("scaled", KERNEL)?;

    let numbers: Vec<f32> = (0..8).map(|i| i as f32).collect();
    let bytes = 4 * numbers.len() as u64;
    let (x, y) = (gpu.buffer("x", bytes)?, gpu.buffer("y", bytes)?);
    gpu.write(&x, 0, bytemuck::cast_slice(&numbers));

    // Commands are data. Recorded like this, whatever they say, shaders stay within their bindings;
    // `Recording::trusted` does without the checks, and is `unsafe`.
    let scaled = Command::Dispatch {
        kernel: "scaled",
        params: Default::default(),
        bindings: vec![
            ("x".into(), Slice::whole(&x), Scalar::F32),
            ("y".into(), Slice::whole(&y), Scalar::F32),
        ],
        uniforms: vec![("scale", Uniform::F32(0.5))],
        grid: [1, 1, 1],
        label: "scaled".into(),
        flops: 8,
        bytes: 2 * bytes,
    };
    let recording = Recording::new(&gpu, &[scaled])?;
    // Any number of times.
    recording.play();

    let scaled: Vec<f32> = bytemuck::pod_collect_to_vec(&gpu.read(&y, 0, bytes)?);
    println!("half of {numbers:?} is {scaled:?}");
    Ok(scaled)
}
