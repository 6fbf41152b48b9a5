//! The memory that programs on the processor work on: the only place where it is read and written
//! by address.
//!
//! The contract: every block belongs to one device, and whoever looks into one holds the device's
//! [`Turn`], of which there is one at a time. Within a turn, steps run one after another, and each
//! was checked when it was compiled: what it writes overlaps neither what it reads nor anything
//! else that it writes ([`disjoint`]). So slices of one step never alias.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Error;

/// Bytes of a line of cache, and of the widest vector.
pub(super) const ALIGNMENT: usize = 64;

/// Bytes in use, now and at most so far.
#[derive(Debug, Default)]
pub(super) struct Usage {
    used: AtomicU64,
    peak: AtomicU64,
}

impl Usage {
    /// Counts `bytes` until what is returned is dropped.
    pub fn count(self: &Arc<Usage>, bytes: u64) -> Counted {
        let now = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.peak.fetch_max(now, Ordering::Relaxed);
        Counted { usage: self.clone(), bytes }
    }

    pub fn now_and_peak(&self) -> [u64; 2] {
        [self.used.load(Ordering::Relaxed), self.peak.load(Ordering::Relaxed)]
    }
}

/// Bytes that are counted while it lives.
#[derive(Debug)]
pub(super) struct Counted {
    usage: Arc<Usage>,
    bytes: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.usage.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Whose turn it is on a device.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<()>);

/// The right to look into the memory of a device, until it is dropped.
pub(super) struct Turn<'a>(#[expect(dead_code, reason = "held")] MutexGuard<'a, ()>);

impl Turns {
    pub fn take(&self) -> Turn<'_> {
        Turn(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Blocks whose size is compared with the memory that is left.
const LARGE: u64 = 1 << 30;

/// Bytes of memory that the machine, or the group that this process belongs to, has; as good as
/// endless where that is not known.
pub(super) fn of_machine() -> u64 {
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    kibibytes("MemTotal").map_or(UNKNOWN, |kibibytes| kibibytes << 10).min(group.unwrap_or(UNKNOWN))
}

/// Bytes that are left of it.
fn available() -> u64 {
    kibibytes("MemAvailable").map_or(UNKNOWN, |kibibytes| kibibytes << 10)
}

const UNKNOWN: u64 = 1 << 46;

/// A figure of Linux's.
fn kibibytes(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Memory from the system, zeroed and aligned.
#[derive(Debug)]
pub(super) struct Block {
    start: NonNull<u8>,
    layout: Layout,
    _counted: Counted,
}

// SAFETY: a block owns its memory, which is looked into by the holder of the device's turn alone.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// `bytes` zeros for `what`.
    ///
    /// # Errors
    /// Memory that is exhausted.
    pub fn new(usage: &Arc<Usage>, what: &str, bytes: u64) -> Result<Arc<Block>, Error> {
        let failed = || Error::Memory { what: what.into(), mebibytes: bytes.div_ceil(1 << 20) };
        // Systems give out more than they have, and end whoever uses it.
        if bytes >= LARGE && bytes > available() {
            return Err(failed());
        }
        let size = usize::try_from(bytes.max(1)).map_err(|_| failed())?.next_multiple_of(ALIGNMENT);
        let layout = Layout::from_size_align(size, ALIGNMENT).map_err(|_| failed())?;
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(failed)?;
        Ok(Arc::new(Block { start, layout, _counted: usage.count(size as u64) }))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and nobody holds a span of it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A part of a block that holds numbers of four bytes.
#[derive(Clone, Debug)]
pub(super) struct Span {
    block: Arc<Block>,
    /// In bytes, a multiple of 4.
    offset: usize,
    /// In numbers.
    length: usize,
}

impl Span {
    /// `length` numbers from byte `offset` of `block`; none where the block has no such part.
    pub fn new(block: &Arc<Block>, offset: u64, length: usize) -> Option<Span> {
        let offset = usize::try_from(offset).ok()?;
        let end = length.checked_mul(4)?.checked_add(offset)?;
        let fits = offset.is_multiple_of(4) && end <= block.layout.size();
        fits.then(|| Span { block: block.clone(), offset, length })
    }

    /// A block of its own that holds `values`.
    ///
    /// # Errors
    /// Memory that is exhausted.
    pub fn holding(usage: &Arc<Usage>, what: &str, values: &[f32]) -> Result<Span, Error> {
        let block = Block::new(usage, what, values.len() as u64 * 4)?;
        let span = Span { block, offset: 0, length: values.len() };
        // SAFETY: nobody else knows the block yet.
        unsafe { std::slice::from_raw_parts_mut(span.start(), span.length) }
            .copy_from_slice(values);
        Ok(span)
    }

    pub fn bytes(&self) -> u64 {
        self.length as u64 * 4
    }

    pub fn overlaps(&self, other: &Span) -> bool {
        let (end, other_end) = (self.offset + self.length * 4, other.offset + other.length * 4);
        Arc::ptr_eq(&self.block, &other.block) && self.offset < other_end && other.offset < end
    }

    fn start(&self) -> *mut f32 {
        // SAFETY: within the block, as was checked when the span was made.
        unsafe { self.block.start.as_ptr().add(self.offset).cast() }
    }

    /// What it holds.
    ///
    /// # Safety
    /// While the slice lives, nobody may write to what overlaps the span: see the contract above.
    pub(super) unsafe fn read<'a>(&'a self, _turn: &'a Turn<'_>) -> &'a [f32] {
        // SAFETY: aligned, within the block, initialised; any bits are a number.
        unsafe { std::slice::from_raw_parts(self.start(), self.length) }
    }

    /// What it holds, to be written.
    ///
    /// # Safety
    /// While the slice lives, nobody else may look into what overlaps the span: see the contract
    /// above.
    #[expect(clippy::mut_from_ref, reason = "the turn stands for the right to write")]
    pub(super) unsafe fn write<'a>(&'a self, _turn: &'a Turn<'_>) -> &'a mut [f32] {
        // SAFETY: as for reading.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.length) }
    }

    /// A copy of its bytes.
    pub fn to_bytes(&self, turn: &Turn<'_>) -> Vec<u8> {
        // SAFETY: the turn is held and no step runs in it.
        bytemuck::cast_slice(unsafe { self.read(turn) }).to_vec()
    }

    /// Writes its first bytes.
    pub fn set_bytes(&self, bytes: &[u8], turn: &Turn<'_>) {
        // SAFETY: the turn is held and no step runs in it.
        let all: &mut [u8] = bytemuck::cast_slice_mut(unsafe { self.write(turn) });
        let count = bytes.len().min(all.len());
        all[..count].copy_from_slice(&bytes[..count]);
    }

    /// Copies as many numbers as both have.
    pub fn copy_to(&self, to: &Span, _turn: &Turn<'_>) {
        // SAFETY: both are within their blocks; they may overlap.
        unsafe { std::ptr::copy(self.start(), to.start(), self.length.min(to.length)) }
    }
}

/// Whether a step may read `reads` and write `writes`.
pub(super) fn disjoint<'a>(
    reads: impl Iterator<Item = &'a Span> + Clone,
    writes: &[&'a Span],
) -> bool {
    let apart = |(i, write): (usize, &&Span)| {
        let others = writes.iter().skip(i + 1).copied();
        reads.clone().chain(others).all(|other| !write.overlaps(other))
    };
    writes.iter().enumerate().all(apart)
}
