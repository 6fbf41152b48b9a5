//! On a device that somebody else opened, with plain wgpu.

use std::sync::Arc;

use mixofshow::backend::wgpu::{
    Command, Error, Gpu, Host, Options, Recording, Scalar, Schedule, Slice,
};
use mixofshow::backend::{Backend, Device, Precision};
use mixofshow::checkpoint::Checkpoint;
use mixofshow::pipeline::{Pipeline, Request};
use mixofshow::unwatched;

use super::{chosen, small};

/// The adapter that tests run on, without this library.
fn adapter() -> wgpu::Adapter {
    let name = chosen::adapter(Options::default()).name().to_string();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let all = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    all.into_iter().find(|adapter| adapter.get_info().name == name).unwrap()
}

fn host(limits: wgpu::Limits) -> Host {
    let adapter = adapter();
    let descriptor =
        wgpu::DeviceDescriptor { required_limits: limits, ..wgpu::DeviceDescriptor::default() };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).unwrap();
    Host { adapter, device, queue }
}

/// The host's own use of its device goes on beside.
fn round_trip(host: &Host) -> Vec<u8> {
    let buffer = |usage| {
        host.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4,
            usage,
            mapped_at_creation: false,
        })
    };
    let from = buffer(wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST);
    let to = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    host.queue.write_buffer(&from, 0, &[1, 2, 3, 4]);
    let mut encoder = host.device.create_command_encoder(&Default::default());
    encoder.copy_buffer_to_buffer(&from, 0, &to, 0, 4);
    host.queue.submit([encoder.finish()]);
    to.slice(..).map_async(wgpu::MapMode::Read, |_| {});
    host.device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    to.slice(..).get_mapped_range().unwrap().to_vec()
}

#[test]
fn a_picture_on_the_hosts_device() {
    let host = host(wgpu::Limits::default());
    let picture = |gpu: Arc<Gpu>| {
        let checkpoint = Checkpoint::shipped().unwrap();
        let device = Device::from(gpu);
        let mut pipeline = Pipeline::load(&device, &checkpoint, Precision::AsStored).unwrap();
        let request = Request { steps: 1, guidance: 1.0, ..small("a cat") };
        pipeline.generate(&request, &mut unwatched).unwrap().pictures.swap_remove(0)
    };
    let hosted = Gpu::from_host(host.clone(), &Options::default()).unwrap();
    // The device was made without the features that these take.
    assert_eq!(hosted.schedule(), Schedule::Staged);
    let made = picture(hosted.clone());
    assert!(hosted.memory()[1] > 0);
    assert_eq!(round_trip(&host), [1, 2, 3, 4]);
    let own = picture(chosen::adapter(Options { floor: true, ..Options::default() }));
    assert!(made.rgb() == own.rgb(), "other pixels than on a device of our own");
}

#[test]
fn what_a_device_lacks_is_named() {
    let limits = wgpu::Limits {
        max_storage_buffers_per_shader_stage: 4,
        max_compute_workgroup_storage_size: 8192,
        // Of no use here.
        max_color_attachments: 1,
        ..wgpu::Limits::default()
    };
    let error = Gpu::from_host(host(limits), &Options::default()).err().unwrap();
    assert!(matches!(error, Error::Host { .. }), "{error}");
    let said = error.to_string();
    for part in [
        "max_storage_buffers_per_shader_stage is 4, and 8 are needed",
        "max_compute_workgroup_storage_size is 8192, and 16384 are needed",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("color"), "{said}");
}

#[test]
fn errors_of_the_hosts_device_are_heard() {
    let host = host(wgpu::Limits::default());
    let gpu = Gpu::from_host(host.clone(), &Options::default()).unwrap();
    let wrong = || {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE;
        host.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4,
            usage,
            mapped_at_creation: false,
        })
    };
    wrong();
    assert!(matches!(gpu.wait(), Err(Error::Lost { .. })));
    gpu.wait().unwrap();
    // By the host's own handler.
    let told = gpu.clone();
    host.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| told.note_error(&error)));
    wrong();
    assert!(matches!(gpu.wait(), Err(Error::Lost { .. })));
}

const DOUBLE: &str = "
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&y)) {
        y[id.x] = 2.0 * x[id.x];
    }
}
";

#[test]
fn kernels_of_ones_own() {
    let gpu = chosen::adapter(Options::default());
    gpu.add_kernel("double", DOUBLE).unwrap();
    gpu.add_kernel("double", DOUBLE).unwrap();
    let refused = |name: &'static str, wgsl: &str, says: &str| {
        let error = gpu.add_kernel(name, wgsl).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused("double", &DOUBLE.replace("2.0", "3.0"), "another of that name");
    refused("matmul", DOUBLE, "a kernel of this program has that name");
    refused("half", &DOUBLE.replace("x[id.x]", "z"), "line 8");
    let (x, y) = (gpu.buffer("x", 64).unwrap(), gpu.buffer("y", 64).unwrap());
    let values: Vec<f32> = (0..16).map(|i| i as f32).collect();
    gpu.write(&x, 0, bytemuck::cast_slice(&values));
    let double = Command::Dispatch {
        kernel: "double",
        params: Default::default(),
        bindings: vec![
            ("x".into(), Slice::whole(&x), Scalar::F32),
            ("y".into(), Slice::whole(&y), Scalar::F32),
        ],
        uniforms: Vec::new(),
        grid: [1, 1, 1],
        label: "double".into(),
        flops: 16,
        bytes: 128,
    };
    Recording::new(&gpu, &[double]).unwrap().play();
    let doubled: Vec<f32> = bytemuck::pod_collect_to_vec(&gpu.read(&y, 0, 64).unwrap());
    assert_eq!(doubled, values.iter().map(|v| 2.0 * v).collect::<Vec<_>>());
}
