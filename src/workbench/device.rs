//! A kernel on a device: bound by names, between guards, run and read back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use naga::Module;

use super::interface::Interface;
use crate::backend::wgpu::Gpu;

/// Bytes on both sides of what is bound, and what stands in them.
const GUARD: usize = 256;
const PATTERN: u8 = 0x5a;

/// A kernel that the device has compiled.
pub(super) struct Pipeline {
    gpu: Arc<Gpu>,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// A tensor's bytes, or a uniform buffer's.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub name: String,
    pub bytes: Vec<u8>,
    pub uniform: bool,
}

/// Everything bound, ready to be run any number of times.
pub(super) struct Bound {
    group: wgpu::BindGroup,
    buffers: Vec<(String, wgpu::Buffer, usize)>,
}

impl Pipeline {
    /// Compiles; `checked` keeps the bounds checks that wgpu adds.
    ///
    /// # Errors
    /// What the device says.
    pub fn new(
        gpu: &Arc<Gpu>,
        name: &str,
        module: &Module,
        interface: &Interface,
        overrides: &HashMap<String, f64>,
        checked: bool,
    ) -> Result<Pipeline, String> {
        let (device, _) = gpu.raw();
        let buffer = |binding: u32, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let storage = interface.bindings.iter().map(|bound| {
            let ty = wgpu::BufferBindingType::Storage { read_only: !bound.writable };
            buffer(bound.slot, ty)
        });
        let uniforms = interface
            .uniforms
            .iter()
            .map(|uniforms| buffer(uniforms.slot, wgpu::BufferBindingType::Uniform));
        let entries: Vec<_> = storage.chain(uniforms).collect();
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
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(name),
            source: wgpu::ShaderSource::Naga(Cow::Owned(module.clone())),
        };
        let shader = if checked {
            device.create_shader_module(descriptor)
        } else {
            // SAFETY: only kernels that the interpreter executed at these sizes are run unchecked,
            // where every access that it looked at stayed within its binding (`trust`: all of them,
            // or those of some workgroups, and at small shapes). For what was not looked at whoever
            // measures vouches, as for kernels in a folder of his own; reports say so.
            unsafe {
                device.create_shader_module_trusted(
                    descriptor,
                    wgpu::ShaderRuntimeChecks::unchecked(),
                )
            }
        };
        let known = module.overrides.iter().filter_map(|(_, own)| own.name.as_deref());
        let constants: Vec<(&str, f64)> =
            known.filter_map(|name| Some((name, *overrides.get(name)?))).collect();
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &shader,
            entry_point: None,
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(error.to_string()),
            None => Ok(Pipeline { gpu: gpu.clone(), pipeline, layout }),
        }
    }

    /// Puts contents into buffers of their own, between guards.
    ///
    /// # Errors
    /// What the device says, as of a buffer that is too large.
    pub fn bind(&self, interface: &Interface, contents: &[Content]) -> Result<Bound, String> {
        let (device, queue) = self.gpu.raw();
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let guard = guard(&self.gpu);
        let mut buffers = Vec::new();
        for content in contents {
            let (size, usage) = match content.uniform {
                true => (content.bytes.len(), wgpu::BufferUsages::UNIFORM),
                false => (content.bytes.len() + 2 * guard, wgpu::BufferUsages::STORAGE),
            };
            let buffer = device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(&content.name),
                size: size.max(16).next_multiple_of(16) as u64,
                usage: usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            queue.write_buffer(&buffer, 0, &filled(content, guard));
            buffers.push((content.name.clone(), buffer, content.bytes.len()));
        }
        let find = |name: &str| {
            let found = buffers.iter().find(|(known, ..)| known == name);
            found.ok_or_else(|| format!("binding `{name}` was not given"))
        };
        let mut entries = Vec::new();
        for bound in &interface.bindings {
            let (_, buffer, size) = find(&bound.name)?;
            entries.push(wgpu::BindGroupEntry {
                binding: bound.slot,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer,
                    offset: guard as u64,
                    size: wgpu::BufferSize::new(
                        (*size).max(bound.stride.max(4)).next_multiple_of(4) as u64,
                    ),
                }),
            });
        }
        for uniforms in &interface.uniforms {
            let (_, buffer, _) = find(&uniforms.name)?;
            entries.push(wgpu::BindGroupEntry {
                binding: uniforms.slot,
                resource: buffer.as_entire_binding(),
            });
        }
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.layout,
            entries: &entries,
        });
        let errors = [pollster::block_on(memory.pop()), pollster::block_on(scope.pop())];
        match errors.into_iter().flatten().next() {
            Some(error) => Err(error.to_string()),
            None => Ok(Bound { group, buffers }),
        }
    }

    /// Submits so many dispatches in one pass, with timestamps around them where a set is given.
    pub fn submit(
        &self,
        bound: &Bound,
        grid: [u32; 3],
        times: usize,
        timestamps: Option<&wgpu::QuerySet>,
    ) {
        let (device, queue) = self.gpu.raw();
        let mut encoder = device.create_command_encoder(&Default::default());
        {
            let writes = timestamps.map(|query_set| wgpu::ComputePassTimestampWrites {
                query_set,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: writes,
            });
            pass.set_pipeline(&self.pipeline);
            pass.set_bind_group(0, &bound.group, &[]);
            for _ in 0..times {
                pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
            }
        }
        queue.submit([encoder.finish()]);
    }

    /// Writes contents anew, into buffers of their sizes.
    pub fn refill(&self, bound: &Bound, contents: &[Content]) {
        let (_, queue) = self.gpu.raw();
        for (content, (_, buffer, _)) in contents.iter().zip(&bound.buffers) {
            queue.write_buffer(buffer, 0, &filled(content, guard(&self.gpu)));
        }
    }

    /// What stands in a tensor's buffer now, and whether its guards are as they were.
    ///
    /// # Errors
    /// A device that failed.
    pub fn read(&self, bound: &Bound, name: &str) -> Result<(Vec<u8>, bool), String> {
        let (device, queue) = self.gpu.raw();
        let (_, buffer, size) = bound
            .buffers
            .iter()
            .find(|(known, ..)| known == name)
            .ok_or_else(|| format!("there is no buffer `{name}`"))?;
        let staging = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read back"),
            size: buffer.size(),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut encoder = device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &staging, 0, buffer.size());
        queue.submit([encoder.finish()]);
        staging.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        self.gpu.wait().map_err(|error| error.to_string())?;
        let range = staging.slice(..).get_mapped_range().map_err(|error| error.to_string())?;
        let guard = guard(&self.gpu);
        let intact = range[..guard].iter().all(|&byte| byte == PATTERN)
            && range[guard + size.next_multiple_of(4)..2 * guard + size]
                .iter()
                .all(|&byte| byte == PATTERN);
        Ok((range[guard..guard + size].to_vec(), intact))
    }
}

fn guard(gpu: &Gpu) -> usize {
    GUARD.max(gpu.limits().min_storage_buffer_offset_alignment as usize)
}

fn filled(content: &Content, guard: usize) -> Vec<u8> {
    let mut bytes = content.bytes.clone();
    if !content.uniform {
        let mut all = vec![PATTERN; guard];
        all.append(&mut bytes);
        all.resize(all.len() + guard, PATTERN);
        bytes = all;
    }
    bytes.resize(bytes.len().next_multiple_of(4), PATTERN);
    bytes
}
