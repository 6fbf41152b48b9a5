//! Device buffers, counted while they live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are in use.
#[derive(Debug, Default)]
pub(super) struct Memory {
    used: AtomicU64,
    peak: AtomicU64,
}

impl Memory {
    pub(super) fn add(&self, bytes: u64) {
        let now = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Now, and at most so far.
    pub(super) fn now_and_peak(&self) -> [u64; 2] {
        [self.used.load(Ordering::Relaxed), self.peak.load(Ordering::Relaxed)]
    }
}

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
    /// Counts `raw` while it lives.
    pub(super) fn counted(raw: wgpu::Buffer, memory: &Arc<Memory>) -> Buffer {
        memory.add(raw.size());
        Buffer { raw, memory: memory.clone() }
    }

    /// In bytes, rounded up to a multiple of 16.
    pub fn size(&self) -> u64 {
        self.raw.size()
    }
}
