//! Device buffers, counted while they live.

use std::sync::Arc;

use super::device::Memory;
use super::{Error, Gpu, Result};

/// Device memory that kernels may read and write.
pub struct Buffer {
    pub(super) raw: wgpu::Buffer,
    memory: Arc<Memory>,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.raw.size())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.memory.remove(self.raw.size());
    }
}

/// A part of a buffer: bytes `offset .. offset + size`.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The buffer that it is a part of; it lives as long as this.
    pub buffer: Arc<Buffer>,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub size: u64,
}

impl Slice {
    /// All of a buffer.
    pub fn whole(buffer: &Arc<Buffer>) -> Slice {
        Slice { buffer: buffer.clone(), offset: 0, size: buffer.size() }
    }
}

impl Buffer {
    /// In bytes, rounded up to a multiple of 16.
    pub fn size(&self) -> u64 {
        self.raw.size()
    }
}

impl Gpu {
    /// A zeroed buffer for kernels and copies.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where the adapter allows no buffer of that size, [`Error::Lost`] where
    /// memory is exhausted.
    pub fn buffer(&self, what: &str, size: u64) -> Result<Arc<Buffer>> {
        self.make_buffer(what, size, wgpu::BufferUsages::STORAGE)
    }

    /// A buffer for uniforms.
    pub(super) fn uniform_buffer(&self, size: u64) -> Result<Arc<Buffer>> {
        self.make_buffer("uniforms", size, wgpu::BufferUsages::UNIFORM)
    }

    fn make_buffer(&self, what: &str, size: u64, usage: wgpu::BufferUsages) -> Result<Arc<Buffer>> {
        let size = size.max(16).next_multiple_of(16);
        if size > self.limits().max_buffer_size {
            return Err(Error::TooLarge {
                what: what.into(),
                needed: mebibytes(size),
                allowed: mebibytes(self.limits().max_buffer_size),
                adapter: self.name().into(),
            });
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage: usage | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            let message = format!("{what} ({}): {error}", mebibytes(size));
            return Err(Error::Lost { adapter: self.name().into(), message });
        }
        self.memory.add(size);
        Ok(Arc::new(Buffer { raw, memory: self.memory.clone() }))
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}
