//! Finding and choosing adapters.

use serde::Serialize;

use super::Result;
use super::error::Error;
use super::measured;
use super::traits::Schedule;

/// What `mos devices` says of an adapter.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterReport {
    /// Its place in the list of adapters.
    pub index: usize,
    /// As its driver calls it.
    pub name: String,
    /// Who made it, by the number of its PCI vendor.
    pub vendor: String,
    /// The driver and its version.
    pub driver: String,
    /// Vulkan, Metal or Dx12.
    pub backend: String,
    /// discrete, integrated, virtual, cpu or other
    pub kind: &'static str,
    /// Bytes that one buffer may have.
    pub max_buffer: u64,
    /// Bytes that one binding may have.
    pub max_binding: u64,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Most invocations of a workgroup.
    pub workgroup_invocations: u32,
    /// Most storage buffers that a shader may bind.
    pub storage_buffers: u32,
    /// Whether shaders may compute in f16.
    pub f16: bool,
    /// Subgroup sizes, where the adapter has subgroup operations.
    pub subgroups: Option<(u32, u32)>,
    /// Sizes m x n x k and element types of cooperative matrices.
    pub cooperative_matrices: Vec<String>,
    /// Whether products are made of them, or why not; known once tried
    /// ([`AdapterReport::try_matrices`]).
    pub matrices: Option<String>,
    /// In which precision activations are kept, once it was tried, too.
    pub activations: Option<String>,
    /// Whether the device tells when a dispatch began and ended.
    pub timestamps: bool,
    /// How numbers are held by default.
    pub precision: &'static str,
    /// Where the sizes of tiles are from: the standard table, or one that was measured.
    pub sizes: String,
    /// Which kernels run: staged, or with cooperative matrices, once they passed their test.
    pub schedule: &'static str,
}

/// Which adapter to use.
#[derive(Clone, Debug, Default)]
pub enum Selection {
    /// Discrete before integrated before virtual before software.
    #[default]
    Best,
    /// As `Best`, but no software driver.
    Card,
    /// An index of [`list`], or a part of the name, whatever the case.
    Matching(String),
    /// No device at all: plans can be made and checked, nothing can be run.
    Noop(Box<wgpu::Limits>),
}

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

/// Sizes and element types of one kind of cooperative matrices: `8x8x8 f16 to f32`.
fn matrix(m: &wgpu::CooperativeMatrixProperties) -> String {
    let [from, to] = [m.ab_type, m.cr_type].map(|scalar| format!("{scalar:?}").to_lowercase());
    format!("{}x{}x{} {from} to {to}", m.m_size, m.n_size, m.k_size)
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
        subgroups: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        cooperative_matrices: matrices.iter().map(matrix).collect(),
        matrices: None,
        activations: None,
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        precision: "weights as in the file (f16 or f32), activations and sums f32",
        sizes: match measured::sizes(&info) {
            Ok((_, from)) => from.to_string(),
            Err(problem) => format!("not usable: {problem}"),
        },
        schedule: Schedule::Staged.name(),
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

/// Which of `adapters` a selection names: its place in the list.
///
/// # Errors
/// [`Error::NoAdapter`] says what to install on this platform; [`Error::NoMatch`] lists what there
/// is.
pub fn choose(adapters: &[AdapterReport], selection: &Selection) -> Result<usize> {
    let Selection::Matching(selector) = selection else {
        let rank = |adapter: &AdapterReport| match adapter.kind {
            "discrete" => 0,
            "integrated" => 1,
            "virtual" => 2,
            "cpu" => 4,
            _ => 3,
        };
        let fits = |adapter: &AdapterReport| {
            !matches!(selection, Selection::Card) || adapter.kind != "cpu"
        };
        let best =
            (0..adapters.len()).filter(|&i| fits(&adapters[i])).min_by_key(|&i| rank(&adapters[i]));
        return best.ok_or(Error::NoAdapter { hint: HINT });
    };
    if adapters.is_empty() {
        return Err(Error::NoAdapter { hint: HINT });
    }
    let wanted = selector.to_lowercase();
    let by_index = wanted.parse().ok().filter(|&index: &usize| index < adapters.len());
    let by_name = || adapters.iter().position(|a| a.name.to_lowercase().contains(&wanted));
    by_index.or_else(by_name).ok_or_else(|| {
        let names: Vec<String> =
            adapters.iter().map(|a| format!("{}: {}", a.index, a.name)).collect();
        Error::NoMatch { selector: selector.clone(), available: names.join(", ") }
    })
}

/// The adapter that `selection` names.
///
/// # Errors
/// Those of [`choose`].
pub fn select(selection: &Selection) -> Result<wgpu::Adapter> {
    let noop = match selection {
        Selection::Noop(limits) => Some(&**limits),
        _ => None,
    };
    let mut found = adapters(&instance(noop));
    let reports: Vec<AdapterReport> = found.iter().enumerate().map(|(i, a)| report(i, a)).collect();
    Ok(found.swap_remove(choose(&reports, selection)?))
}

#[cfg(target_os = "linux")]
const HINT: &str = "Install your card's Vulkan driver: for AMD's and Intel's `apt install \
    mesa-vulkan-drivers` on Debian and Ubuntu, `dnf install mesa-vulkan-drivers` on Fedora, \
    `pacman -S vulkan-radeon` or `vulkan-intel` on Arch. NVIDIA's own also wants GLVND's libraries \
    (`libegl1 libgl1` on Debian and Ubuntu), without which it is passed over in silence.";
#[cfg(target_os = "windows")]
const HINT: &str = "Install the current driver of your graphics card (DirectX 12 or Vulkan).";
#[cfg(target_os = "macos")]
const HINT: &str = "Metal is part of macOS; this machine offers none (a virtual machine without a \
    graphics device?).";
#[cfg(not(any(target_os = "linux", target_os = "windows", target_os = "macos")))]
const HINT: &str = "Install a Vulkan driver.";
