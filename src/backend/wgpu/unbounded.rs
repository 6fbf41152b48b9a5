//! Opening a Vulkan device whose driver needn't check the bounds of buffers.
//!
//! wgpu asks every driver for `robustBufferAccess`. Software drivers pay for that with a comparison
//! and a branch in front of every load; without it they merge neighbouring loads into vectors, and
//! products are two to three times as fast. Our kernels index within the sizes that their dispatch
//! gives; tests run them with checks on.

type Opened = Result<(wgpu::Device, wgpu::Queue), wgpu::RequestDeviceError>;

/// The device of a Vulkan adapter, without `robustBufferAccess`; `None` if that cannot be had, and
/// the ordinary way is to be taken.
#[cfg(any(windows, all(unix, not(target_vendor = "apple"))))]
pub(super) fn request_device(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Option<Opened> {
    use ash::vk;
    use wgpu::hal::api::Vulkan;

    let features = descriptor.required_features;
    // SAFETY: the handles that are borrowed here are only used while the adapter lives.
    let hal = unsafe { adapter.as_hal::<Vulkan>() }?;
    let mut extensions = hal.required_device_extensions(features);
    extensions.retain(|name| *name != ash::ext::robustness2::NAME);
    let mut wanted = hal.physical_device_features(&extensions, features);
    let queues =
        [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
    let names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    let info =
        vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let mut info = wanted.add_to_device_create(info);
    // SAFETY: the pointer is null or that of the feature struct in `wanted`, which outlives this
    // copy of it.
    let mut core = *unsafe { info.p_enabled_features.as_ref() }?;
    core.robust_buffer_access = vk::FALSE;
    info.p_enabled_features = &core;
    let instance = hal.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to the instance; all that `info` points to lives until
    // the call returns.
    let raw = unsafe { instance.create_device(hal.raw_physical_device(), &info, None) }.ok()?;
    // SAFETY: the device was made from this adapter with the extensions, features and the one queue
    // that are named again here, as wgpu itself does it, but for the bounds checks; wgpu owns it
    // from here on.
    let open = unsafe {
        hal.device_from_raw(
            raw,
            None,
            &extensions,
            features,
            &descriptor.required_limits,
            &descriptor.memory_hints,
            0,
            0,
        )
    };
    let open = open.ok()?;
    drop(hal);
    // SAFETY: the device was made for the features and limits of the same descriptor.
    Some(unsafe { adapter.create_device_from_hal::<Vulkan>(open, descriptor) })
}

#[cfg(not(any(windows, all(unix, not(target_vendor = "apple")))))]
pub(super) fn request_device(_: &wgpu::Adapter, _: &wgpu::DeviceDescriptor<'_>) -> Option<Opened> {
    None
}
