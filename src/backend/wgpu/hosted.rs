//! A device that the host of this library has opened already.

use std::sync::Arc;

use super::measured;
use super::template::replaced_kernels;
use super::{Error, Gpu, Matrices, Options, Result};

/// Limits that count for kernels; those of textures, vertices and the like do not.
const OF_KERNELS: [&str; 12] = [
    "max_bind_groups",
    "max_bindings_per_bind_group",
    "max_storage_buffers_per_shader_stage",
    "max_uniform_buffers_per_shader_stage",
    "max_uniform_buffer_binding_size",
    "max_storage_buffer_binding_size",
    "max_buffer_size",
    "max_compute_workgroup_storage_size",
    "max_compute_invocations_per_workgroup",
    "max_compute_workgroup_size_x",
    "max_compute_workgroup_size_y",
    "max_compute_workgroups_per_dimension",
];

/// What a host has opened with wgpu.
#[derive(Clone, Debug)]
pub struct Host {
    /// The adapter that the device was made from: wgpu tells more of it than of the device.
    pub adapter: wgpu::Adapter,
    /// The device, which the host goes on using as it likes.
    pub device: wgpu::Device,
    /// Its queue. Work of both is done in the order in which it is submitted.
    pub queue: wgpu::Queue,
}

impl Gpu {
    /// The device that the host has already, so that both share its memory and its queue. wgpu is
    /// the crate `wgpu` in the version that this crate is built with, which is
    /// [`backend::wgpu::api`](super::api).
    ///
    /// What the device must have:
    /// - Vulkan, Metal or DirectX 12 behind it (or the noop back end, which runs nothing);
    /// - of limits, those that count for compute shaders, WebGPU's defaults at least
    ///   (`wgpu::Limits::default()`). Make it with the adapter's own limits instead: the largest
    ///   picture, and the largest model, follow from `max_storage_buffer_binding_size` and
    ///   `max_buffer_size`;
    /// - of features, none. With `EXPERIMENTAL_COOPERATIVE_MATRIX`, `SHADER_F16` and `SUBGROUP` all
    ///   three, products with weights in f16 are made with cooperative matrices, where the adapter
    ///   has them and [`Options::matrices`] has them used. On Vulkan they want `PASSTHROUGH_SHADERS`
    ///   too: without it their SPIR-V lacks what its memory model asks for, and attention with them
    ///   may fail its test. `PIPELINE_CACHE` is for [`Options::cache`].
    ///
    /// The device's handler of uncaptured errors is replaced by one that keeps them for the next
    /// call that waits, which fails with [`Error::Lost`]. A host that wants to hear them sets its
    /// own afterwards, and hands them on to [`Gpu::note_error`]: otherwise failures go unnoticed.
    ///
    /// Of `options`, those that choose or limit an adapter do not count: `selection` and `floor`.
    ///
    /// # Errors
    /// [`Error::Host`] with everything that the device lacks; kernels or sizes that cannot be used.
    pub fn from_host(host: Host, options: &Options) -> Result<Arc<Gpu>> {
        replaced_kernels()?;
        let Host { adapter, device, queue } = host;
        let (info, limits, features) = (adapter.get_info(), device.limits(), device.features());
        let mut lacks = Vec::new();
        let made_from = device.adapter_info();
        if (&made_from.name, made_from.backend) != (&info.name, info.backend) {
            lacks.push(format!(
                "the device was made from another adapter, `{}` ({})",
                made_from.name, made_from.backend
            ));
        }
        use wgpu::Backend::{Dx12, Metal, Noop, Vulkan};
        if ![Vulkan, Metal, Dx12, Noop].contains(&info.backend) {
            lacks.push(format!("{} is behind it: expected Vulkan, Metal or Dx12", info.backend));
        }
        let least = wgpu::Limits::default();
        least.check_limits_with_fail_fn(&limits, false, |name, needed, found| {
            if OF_KERNELS.contains(&name) {
                lacks.push(format!("{name} is {found}, and {needed} are needed"));
            }
        });
        let failed = |problems: Vec<String>| Error::Host {
            adapter: info.name.clone(),
            problem: problems.join("; "),
        };
        if !lacks.is_empty() {
            return Err(failed(lacks));
        }
        let tuned = match options.tuned {
            Some(tuned) => tuned,
            None => measured::sizes(&info).map_err(|problem| failed(vec![problem]))?.0,
        };
        tuned.check().map_err(|problem| failed(vec![problem]))?;
        let has = Matrices::of(&adapter, features, &limits);
        let matrices = options.matrices_of(has, &tuned).map_err(|problem| failed(vec![problem]))?;
        Ok(Gpu::of(device, queue, info, limits, options, tuned, matrices))
    }
}
