//! Finding and choosing adapters.

use serde::Serialize;

use super::{Error, Result};

/// What `mos devices` says of an adapter.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterReport {
    pub index: usize,
    pub name: String,
    pub vendor: String,
    pub driver: String,
    pub backend: String,
    /// discrete, integrated, virtual, cpu or other
    pub kind: &'static str,
    /// Bytes that one buffer may have.
    pub max_buffer: u64,
    /// Bytes that one binding may have.
    pub max_binding: u64,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    pub workgroup_invocations: u32,
    pub storage_buffers: u32,
    pub f16: bool,
    /// Subgroup sizes, where the adapter has subgroup operations.
    pub subgroups: Option<(u32, u32)>,
    /// Sizes m x n x k of cooperative matrices.
    pub cooperative_matrices: Vec<String>,
    pub timestamps: bool,
    /// How numbers are held by default.
    pub precision: &'static str,
    /// Which kernel schedule is preferred.
    pub schedule: &'static str,
}

/// Which adapter to use.
#[derive(Clone, Debug, Default)]
pub enum Selection {
    /// Discrete before integrated before virtual before software.
    #[default]
    Best,
    /// An index of [`list`], or a part of the name, whatever the case.
    Matching(String),
    /// No device at all: plans can be made and checked, nothing can be run.
    Noop(Box<wgpu::Limits>),
}

pub(super) const EXTRA_FEATURES: wgpu::Features = wgpu::Features::SHADER_F16
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::TIMESTAMP_QUERY)
    .union(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);

fn vendor(id: u32) -> String {
    match id {
        0x1002 | 0x1022 => "AMD".into(),
        0x10de => "NVIDIA".into(),
        0x8086 => "Intel".into(),
        0x106b => "Apple".into(),
        0x13b5 => "Arm".into(),
        0x5143 => "Qualcomm".into(),
        0x10005 => "Mesa".into(),
        0x1414 => "Microsoft".into(),
        0x1ae0 => "Google".into(),
        other => format!("{other:#06x}"),
    }
}

fn kind(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::Other => "other",
    }
}

/// Which form of the heavy kernels suits an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Tiles staged in workgroup memory: graphics cards.
    Staged,
    /// Register tiles without barriers: software drivers, which run a workgroup as one SIMD vector.
    Registers {
        /// The CPU has 32 vector registers (AVX-512), so that a small tile stays in them; with 16, every tile is spilled and a
        /// large one at least reuses what it loads.
        many: bool,
    },
}

impl Schedule {
    pub(super) fn of(info: &wgpu::AdapterInfo) -> Schedule {
        #[cfg(target_arch = "x86_64")]
        let many = std::arch::is_x86_feature_detected!("avx512vl");
        #[cfg(not(target_arch = "x86_64"))]
        let many = cfg!(target_arch = "aarch64");
        match info.device_type {
            wgpu::DeviceType::Cpu => Schedule::Registers { many },
            _ => Schedule::Staged,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Schedule::Staged => "staged",
            Schedule::Registers { .. } => "registers",
        }
    }
}

fn report(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let matrices = adapter.cooperative_matrix_properties();
    AdapterReport {
        index,
        name: info.name.clone(),
        vendor: vendor(info.vendor),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        backend: info.backend.to_string(),
        kind: kind(info.device_type),
        max_buffer: limits.max_buffer_size,
        max_binding: limits.max_storage_buffer_binding_size,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        workgroup_invocations: limits.max_compute_invocations_per_workgroup,
        storage_buffers: limits.max_storage_buffers_per_shader_stage,
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features.contains(wgpu::Features::SUBGROUP).then_some((info.subgroup_min_size, info.subgroup_max_size)),
        cooperative_matrices: matrices.iter().map(|m| format!("{m:?}")).collect(),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        precision: "weights as in the file (f16 or f32), activations and sums f32",
        schedule: Schedule::of(&info).name(),
    }
}

fn instance(noop: Option<&wgpu::Limits>) -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = match noop {
        Some(_) => wgpu::Backends::NOOP,
        None => wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
    };
    if let Some(limits) = noop {
        descriptor.backend_options.noop.enable = true;
        descriptor.backend_options.noop.limits = Some(limits.clone());
        descriptor.backend_options.noop.features = Some(wgpu::Features::empty());
    }
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

fn adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

/// Every adapter of every back end.
pub fn list() -> Vec<AdapterReport> {
    adapters(&instance(None)).iter().enumerate().map(|(i, a)| report(i, a)).collect()
}

/// The adapter that `selection` names.
///
/// # Errors
/// [`Error::NoAdapter`] says what to install on this platform; [`Error::NoMatch`] lists what there is.
pub fn select(selection: &Selection) -> Result<wgpu::Adapter> {
    let noop = match selection {
        Selection::Noop(limits) => Some(&**limits),
        _ => None,
    };
    let mut found = adapters(&instance(noop));
    let position = match selection {
        Selection::Matching(selector) => {
            let wanted = selector.to_lowercase();
            let by_name = || found.iter().position(|a| a.get_info().name.to_lowercase().contains(&wanted));
            let position = match wanted.parse::<usize>() {
                Ok(index) if index < found.len() => Some(index),
                _ => by_name(),
            };
            if position.is_none() && !found.is_empty() {
                let names: Vec<String> = found.iter().enumerate().map(|(i, a)| format!("{i}: {}", a.get_info().name)).collect();
                return Err(Error::NoMatch { selector: selector.clone(), available: names.join(", ") });
            }
            position
        }
        _ => (0..found.len()).min_by_key(|&i| match found[i].get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        }),
    };
    match position {
        Some(position) => Ok(found.swap_remove(position)),
        None => Err(Error::NoAdapter { hint: HINT }),
    }
}

#[cfg(target_os = "linux")]
const HINT: &str = "Install your card's Vulkan driver, or the software one: `apt install mesa-vulkan-drivers` on Debian and Ubuntu, \
    `dnf install mesa-vulkan-drivers` on Fedora, `pacman -S vulkan-swrast` on Arch.";
#[cfg(target_os = "windows")]
const HINT: &str = "Install the current driver of your graphics card (DirectX 12 or Vulkan).";
#[cfg(target_os = "macos")]
const HINT: &str = "Metal is part of macOS; this machine offers none (a virtual machine without a graphics device?).";
#[cfg(not(any(target_os = "linux", target_os = "windows", target_os = "macos")))]
const HINT: &str = "Install a Vulkan driver.";
