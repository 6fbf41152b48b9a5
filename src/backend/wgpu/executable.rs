//! What a driver tells of a kernel that it compiled: registers, memory, occupancy, in its own
//! words.

/// A program that a driver made of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Executable {
    /// As the driver calls it.
    pub name: String,
    /// What it is, where the driver says so.
    pub description: String,
    /// Invocations of a subgroup; 0 where it has none.
    pub subgroup: u32,
    /// What it tells, in its order.
    pub statistics: Vec<Statistic>,
}

/// One thing that a driver tells.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistic {
    /// As the driver calls it.
    pub name: String,
    /// What it means, where the driver says so.
    pub description: String,
    /// How much, or whether.
    pub value: StatisticValue,
}

/// The kinds of values that drivers tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StatisticValue {
    /// Whether something is so.
    Flag(bool),
    /// A whole number, maybe below zero.
    Signed(i64),
    /// A whole number.
    Unsigned(u64),
    /// A number.
    Float(f64),
}

/// A kernel for a driver.
#[derive(Clone, Debug)]
pub struct Compilable<'a> {
    /// SPIR-V.
    pub words: &'a [u32],
    /// The entry point's name there.
    pub entry: &'a str,
    /// The bindings of group 0 by their numbers, and whether each is a uniform.
    pub bindings: &'a [(u32, bool)],
}

/// Has an adapter's driver compile a kernel, and asks what came of it; nothing where the driver does
/// not tell, or is not Vulkan's.
///
/// # Errors
/// A kernel that the driver refuses.
pub fn executables(
    adapter: &wgpu::Adapter,
    kernel: &Compilable<'_>,
) -> Result<Option<Vec<Executable>>, String> {
    imp::executables(adapter, kernel)
}

#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod imp {
    use std::ffi::{CStr, CString};

    use ash::{khr, vk};

    use super::{Compilable, Executable, Statistic, StatisticValue};

    /// Of these, what a kernel may need beside the one that tells.
    const OTHERS: [&CStr; 4] = [
        khr::shader_float16_int8::NAME,
        khr::_16bit_storage::NAME,
        khr::vulkan_memory_model::NAME,
        khr::cooperative_matrix::NAME,
    ];

    /// A device of its own, for as long as the question takes, with what was made on it.
    struct Asked {
        device: ash::Device,
        set: vk::DescriptorSetLayout,
        layout: vk::PipelineLayout,
        module: vk::ShaderModule,
        pipeline: vk::Pipeline,
    }

    impl Drop for Asked {
        fn drop(&mut self) {
            // SAFETY: all of it was made on this device, nothing of it was ever submitted, and
            // nobody else knows of it. What was not made is null, which is allowed.
            unsafe {
                self.device.destroy_pipeline(self.pipeline, None);
                self.device.destroy_shader_module(self.module, None);
                self.device.destroy_pipeline_layout(self.layout, None);
                self.device.destroy_descriptor_set_layout(self.set, None);
                self.device.destroy_device(None);
            }
        }
    }

    fn told(result: vk::Result) -> String {
        format!("the driver refuses it: {result}")
    }

    pub fn executables(
        adapter: &wgpu::Adapter,
        kernel: &Compilable<'_>,
    ) -> Result<Option<Vec<Executable>>, String> {
        // SAFETY: nothing that it gives is destroyed here.
        let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() };
        let Some(hal) = hal else { return Ok(None) };
        let (instance, card) = (hal.shared_instance().raw_instance(), hal.raw_physical_device());
        // SAFETY: the instance and its physical device live as long as `hal`.
        let known =
            unsafe { instance.enumerate_device_extension_properties(card) }.map_err(told)?;
        let has = |name: &CStr| known.iter().any(|own| own.extension_name_as_c_str() == Ok(name));
        if !has(khr::pipeline_executable_properties::NAME) {
            return Ok(None);
        }
        let asked = Asked::new(instance, card, &has)?;
        match asked {
            Some(mut asked) => asked.compile(kernel)?.statistics(instance).map(Some),
            None => Ok(None),
        }
    }

    impl Asked {
        /// With all that the driver has of what kernels need; none where it does not tell after
        /// all.
        fn new(
            instance: &ash::Instance,
            card: vk::PhysicalDevice,
            has: &dyn Fn(&CStr) -> bool,
        ) -> Result<Option<Asked>, String> {
            let mut tells = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
            let mut halves = vk::PhysicalDeviceShaderFloat16Int8Features::default();
            let mut storage = vk::PhysicalDevice16BitStorageFeatures::default();
            let mut memory = vk::PhysicalDeviceVulkanMemoryModelFeatures::default();
            let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
            let mut question = vk::PhysicalDeviceFeatures2::default().push_next(&mut tells);
            // SAFETY: the chain holds one structure, which outlives the call.
            unsafe { instance.get_physical_device_features2(card, &mut question) };
            if tells.pipeline_executable_info == vk::FALSE {
                return Ok(None);
            }
            tells.p_next = std::ptr::null_mut();
            let mut features = vk::PhysicalDeviceFeatures2::default().push_next(&mut tells);
            if has(khr::shader_float16_int8::NAME) {
                features = features.push_next(&mut halves);
            }
            if has(khr::_16bit_storage::NAME) {
                features = features.push_next(&mut storage);
            }
            if has(khr::vulkan_memory_model::NAME) {
                features = features.push_next(&mut memory);
            }
            if has(khr::cooperative_matrix::NAME) {
                features = features.push_next(&mut matrices);
            }
            // SAFETY: each structure of the chain stands in it once and outlives the call.
            unsafe { instance.get_physical_device_features2(card, &mut features) };
            let mut names = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
            names.extend(OTHERS.into_iter().filter(|name| has(name)).map(CStr::as_ptr));
            let queues = [vk::DeviceQueueCreateInfo::default()
                .queue_family_index(0)
                .queue_priorities(&[1.0])];
            let info = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&names)
                .push_next(&mut features);
            // SAFETY: extensions and features are those that the driver said it has.
            let device = unsafe { instance.create_device(card, &info, None) }.map_err(told)?;
            Ok(Some(Asked {
                device,
                set: vk::DescriptorSetLayout::null(),
                layout: vk::PipelineLayout::null(),
                module: vk::ShaderModule::null(),
                pipeline: vk::Pipeline::null(),
            }))
        }

        fn compile(&mut self, kernel: &Compilable<'_>) -> Result<&Asked, String> {
            let bindings: Vec<_> = kernel
                .bindings
                .iter()
                .map(|&(number, uniform)| {
                    vk::DescriptorSetLayoutBinding::default()
                        .binding(number)
                        .descriptor_type(match uniform {
                            true => vk::DescriptorType::UNIFORM_BUFFER,
                            false => vk::DescriptorType::STORAGE_BUFFER,
                        })
                        .descriptor_count(1)
                        .stage_flags(vk::ShaderStageFlags::COMPUTE)
                })
                .collect();
            let entry = CString::new(kernel.entry).map_err(|error| error.to_string())?;
            let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let module = vk::ShaderModuleCreateInfo::default().code(kernel.words);
            // SAFETY: the SPIR-V was written by naga of a module that it validated, and has the
            // entry point and bindings that are named; what the calls are given outlives them.
            unsafe {
                self.set = self.device.create_descriptor_set_layout(&set, None).map_err(told)?;
                let sets = [self.set];
                let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
                self.layout = self.device.create_pipeline_layout(&layout, None).map_err(told)?;
                self.module = self.device.create_shader_module(&module, None).map_err(told)?;
                let stage = vk::PipelineShaderStageCreateInfo::default()
                    .stage(vk::ShaderStageFlags::COMPUTE)
                    .module(self.module)
                    .name(&entry);
                let info = vk::ComputePipelineCreateInfo::default()
                    .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
                    .stage(stage)
                    .layout(self.layout);
                let none = vk::PipelineCache::null();
                let made = self.device.create_compute_pipelines(none, &[info], None);
                let made = made.map_err(|(_, result)| told(result))?;
                self.pipeline = made.first().copied().unwrap_or_default();
            }
            Ok(self)
        }

        fn statistics(&self, instance: &ash::Instance) -> Result<Vec<Executable>, String> {
            let khr = khr::pipeline_executable_properties::Device::new(instance, &self.device);
            let info = vk::PipelineInfoKHR::default().pipeline(self.pipeline);
            // SAFETY: the pipeline was made on this device, so that its statistics are kept.
            let all = unsafe { khr.get_pipeline_executable_properties(&info) }.map_err(told)?;
            let mut executables = Vec::new();
            for (index, own) in (0..).zip(&all) {
                let info = vk::PipelineExecutableInfoKHR::default()
                    .pipeline(self.pipeline)
                    .executable_index(index);
                // SAFETY: as above; there is an executable of that number.
                let told_of = unsafe { khr.get_pipeline_executable_statistics(&info) };
                let statistic = |one: &vk::PipelineExecutableStatisticKHR<'_>| Statistic {
                    name: text(one.name_as_c_str().ok()),
                    description: text(one.description_as_c_str().ok()),
                    value: value(one),
                };
                executables.push(Executable {
                    name: text(own.name_as_c_str().ok()),
                    description: text(own.description_as_c_str().ok()),
                    subgroup: own.subgroup_size,
                    statistics: told_of.map_err(told)?.iter().map(statistic).collect(),
                });
            }
            Ok(executables)
        }
    }

    fn text(name: Option<&CStr>) -> String {
        name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn value(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> StatisticValue {
        use vk::PipelineExecutableStatisticFormatKHR as Format;
        // SAFETY: the format says which of the union's members the driver wrote; all are plain
        // numbers.
        unsafe {
            match statistic.format {
                Format::BOOL32 => StatisticValue::Flag(statistic.value.b32 != vk::FALSE),
                Format::INT64 => StatisticValue::Signed(statistic.value.i64),
                Format::FLOAT64 => StatisticValue::Float(statistic.value.f64),
                _ => StatisticValue::Unsigned(statistic.value.u64),
            }
        }
    }
}

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
mod imp {
    use super::{Compilable, Executable};

    pub fn executables(
        _: &wgpu::Adapter,
        _: &Compilable<'_>,
    ) -> Result<Option<Vec<Executable>>, String> {
        Ok(None)
    }
}
