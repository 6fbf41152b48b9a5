//! From WGSL to a pipeline whose bindings are known by their names.

use std::borrow::Cow;

use super::{Error, Result, spirv};

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A uniform: the same numbers for all invocations.
    Uniform,
    /// Storage that is read.
    Read,
    /// Storage that is read and written.
    ReadWrite,
}

/// Base type of a binding's elements, or of a uniform's member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// 32-bit floating point.
    F32,
    /// 32-bit unsigned integers; packed halves too.
    U32,
    /// 16-bit floating point.
    F16,
}

/// One `@binding` of a kernel.
#[derive(Clone, Debug)]
pub struct Binding {
    /// As the WGSL calls it.
    pub name: String,
    /// The number of its `@binding`; all are in group 0.
    pub slot: u32,
    /// How it is used.
    pub access: Access,
    /// Base type of a storage buffer's elements; a uniform's is that of its first member.
    pub scalar: Scalar,
}

/// A member of a kernel's uniform struct: name, byte offset, type.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub offset: u32,
    pub scalar: Scalar,
}

/// What naga reads in a kernel.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    pub bindings: Vec<Binding>,
    pub uniforms: Vec<Member>,
    pub uniform_size: u32,
    pub workgroup_size: [u32; 3],
    /// Uses cooperative matrices.
    pub cooperative: bool,
}

/// Whether a kernel is compiled with run-time checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checks {
    On,
    /// As the device was opened.
    AsOpened,
}

/// A pipeline and the names by which it is bound.
pub struct Kernel {
    /// With its parameters, as errors call it.
    pub name: String,
    /// What it binds, and how large its workgroups are.
    pub interface: Interface,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

fn scalar(module: &naga::Module, handle: naga::Handle<naga::Type>) -> Option<Scalar> {
    let scalar = match module.types[handle].inner {
        naga::TypeInner::Scalar(scalar) | naga::TypeInner::Vector { scalar, .. } => scalar,
        naga::TypeInner::Array { base, .. } => return self::scalar(module, base),
        _ => return None,
    };
    match (scalar.kind, scalar.width) {
        (naga::ScalarKind::Float, 4) => Some(Scalar::F32),
        (naga::ScalarKind::Float, 2) => Some(Scalar::F16),
        (naga::ScalarKind::Uint, 4) => Some(Scalar::U32),
        _ => None,
    }
}

/// Parses `source` and reads its bindings.
pub fn reflect(name: &str, source: &str) -> Result<(naga::Module, Interface)> {
    let failed = |message: String| Error::Kernel { kernel: name.into(), message };
    let module =
        naga::front::wgsl::parse_str(source).map_err(|e| failed(e.emit_to_string(source)))?;
    let mut interface = Interface::default();
    for (_, variable) in module.global_variables.iter() {
        let (Some(binding), Some(name)) = (&variable.binding, &variable.name) else { continue };
        let access = match variable.space {
            naga::AddressSpace::Uniform => Access::Uniform,
            naga::AddressSpace::Storage { access }
                if access.contains(naga::StorageAccess::STORE) =>
            {
                Access::ReadWrite
            }
            naga::AddressSpace::Storage { .. } => Access::Read,
            _ => return Err(failed(format!("binding `{name}` is neither uniform nor storage"))),
        };
        let mut element = scalar(&module, variable.ty);
        if let (Access::Uniform, naga::TypeInner::Struct { members, span }) =
            (access, &module.types[variable.ty].inner)
        {
            for member in members {
                let (Some(name), Some(scalar)) = (&member.name, scalar(&module, member.ty)) else {
                    return Err(failed(
                        "a member of the uniform struct is neither f32 nor u32".into(),
                    ));
                };
                interface.uniforms.push(Member {
                    name: name.clone(),
                    offset: member.offset,
                    scalar,
                });
            }
            interface.uniform_size = *span;
            element = interface.uniforms.first().map(|m| m.scalar);
        }
        let element = element
            .ok_or_else(|| failed(format!("binding `{name}` has elements of an unknown type")))?;
        interface.bindings.push(Binding {
            name: name.clone(),
            slot: binding.binding,
            access,
            scalar: element,
        });
    }
    let is_matrix =
        |inner: &naga::TypeInner| matches!(inner, naga::TypeInner::CooperativeMatrix { .. });
    interface.cooperative = module.types.iter().any(|(_, ty)| is_matrix(&ty.inner));
    match &module.entry_points[..] {
        [entry] => interface.workgroup_size = entry.workgroup_size,
        other => return Err(failed(format!("expected one entry point, found {}", other.len()))),
    }
    Ok((module, interface))
}

/// What is wrong with `source`, if it can be told without a device: the line, counted from 1, and a
/// sentence.
pub(super) fn complaint(source: &str) -> Option<(usize, String)> {
    let error = match naga::front::wgsl::parse_str(source) {
        Err(error) => {
            let line = error.location(source)?.line_number as usize;
            let labels: Vec<&str> =
                error.labels().map(|(_, label)| label).filter(|label| !label.is_empty()).collect();
            let labels =
                if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
            return Some((line, format!("{}{labels}", error.message())));
        }
        Ok(module) => {
            use naga::valid::{Capabilities, ValidationFlags, Validator};
            Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).err()?
        }
    };
    let line = error.location(source)?.line_number as usize;
    let mut message = error.as_inner().to_string();
    let mut cause = std::error::Error::source(error.as_inner());
    while let Some(inner) = cause {
        message += &format!(": {inner}");
        cause = inner.source();
    }
    Some((line, message))
}

/// Whether kernels with cooperative matrices reach `device` as SPIR-V that is written here, with
/// what Vulkan's memory model asks for.
pub(super) fn takes_spirv(device: &wgpu::Device) -> bool {
    device.features().contains(wgpu::Features::PASSTHROUGH_SHADERS)
        && device.adapter_info().backend == wgpu::Backend::Vulkan
}

impl Kernel {
    pub(super) fn compile(
        device: &wgpu::Device,
        checked: bool,
        name: &str,
        source: &str,
        cache: Option<&wgpu::PipelineCache>,
    ) -> Result<Kernel> {
        let (module, interface) = reflect(name, source)?;
        let entries: Vec<wgpu::BindGroupLayoutEntry> = interface
            .bindings
            .iter()
            .map(|binding| wgpu::BindGroupLayoutEntry {
                binding: binding.slot,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match binding.access {
                        Access::Uniform => wgpu::BufferBindingType::Uniform,
                        access => {
                            wgpu::BufferBindingType::Storage { read_only: access == Access::Read }
                        }
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(name),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let descriptor = |module| wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Naga(Cow::Owned(module)),
        };
        let entry = module.entry_points[0].name.clone();
        let shader = if interface.cooperative && takes_spirv(device) {
            let slots: Vec<u32> = interface.bindings.iter().map(|binding| binding.slot).collect();
            let words = spirv::written(&module, &slots, checked)
                .map_err(|message| Error::Kernel { kernel: name.into(), message })?;
            let entry_point = wgpu::PassthroughShaderEntryPoint {
                name: Cow::Borrowed(&entry),
                workgroup_size: interface.workgroup_size.into(),
            };
            // SAFETY: naga wrote these words from a module that it found valid, with the checks
            // that were asked for; memory operands are all that was added. Without checks, as
            // below.
            unsafe {
                device.create_shader_module_passthrough(wgpu::ShaderModuleDescriptorPassthrough {
                    label: Some(name),
                    entry_points: Cow::Borrowed(&[entry_point]),
                    spirv: Some(Cow::Owned(words)),
                    ..Default::default()
                })
            }
        } else if checked {
            device.create_shader_module(descriptor(module))
        } else {
            // SAFETY: this pipeline is dispatched by `Recording::trusted` and `run_once` alone,
            // whose callers vouch that the dispatch keeps the kernel's contract; within it a kernel
            // clamps or guards every index and ends every loop. Who names kernels of his own
            // (`KERNELS_VARIABLE`) vouches for them.
            unsafe {
                device.create_shader_module_trusted(
                    descriptor(module),
                    wgpu::ShaderRuntimeChecks::unchecked(),
                )
            }
        };
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &shader,
            entry_point: Some(&entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: false,
            },
            cache,
        });
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(Error::Kernel { kernel: name.into(), message: error.to_string() }),
            None => Ok(Kernel { name: name.into(), interface, pipeline, layout }),
        }
    }
}
