//! Pieces of work for rayon's threads, and the scratch that each thread keeps.
//!
//! Run a step within `ThreadPool::install`: a call from a thread outside of the pool has to wake
//! one of its threads and to wait for it, each time.

use std::cell::Cell;

use rayon::prelude::*;

/// Operations below which waking another thread costs more than it gains: about 40 microseconds of
/// one core.
const SMALL: usize = 4 << 20;

/// Operations of the smallest piece that is worth passing to another thread.
pub(crate) const PIECE: usize = 1 << 20;

/// What an operation on numbers that come from memory costs, in the operations of a matmul.
pub(crate) const MEMORY: usize = 8;

/// Calls `each` with 0 .. `count`, on all threads if the `work` of all is worth it.
pub(crate) fn pieces(count: usize, work: usize, each: impl Fn(usize) + Sync) {
    if count <= 1 || work < SMALL || rayon::current_num_threads() == 1 {
        return (0..count).for_each(each);
    }
    (0..count).into_par_iter().with_max_len(1).for_each(&each);
}

/// How many elements of `total` make a piece, of which each costs `cost` operations: a multiple of
/// `unit`.
pub(crate) fn piece(total: usize, unit: usize, cost: usize) -> usize {
    let least = PIECE.div_ceil(cost.max(1));
    // Many pieces let threads that are held up do fewer.
    least.max(total.div_ceil(64)).div_ceil(unit).max(1) * unit
}

/// What several threads write to, each its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(of: &mut [f32]) -> Shared {
        Shared(of.as_mut_ptr())
    }

    /// # Safety
    /// `index` must lie in the slice, and no two threads may touch one element.
    pub unsafe fn at(self, index: usize) -> *mut f32 {
        unsafe { self.0.add(index) }
    }

    /// # Safety
    /// As for [`Shared::at`].
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part<'a>(self, start: usize, length: usize) -> &'a mut [f32] {
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), length) }
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends `elements` of the calling thread's scratch, whatever they hold, to `with`, which may not
/// share work with other threads. Grows it where it is too small: see [`reserve`].
pub(crate) fn with_scratch<R>(elements: usize, with: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut own = SCRATCH.take();
    if own.len() < elements + ALIGN {
        own = vec![0.0; elements + ALIGN];
    }
    let start = own.as_ptr().align_offset(ALIGN * 4).min(ALIGN);
    let result = with(&mut own[start..start + elements]);
    SCRATCH.set(own);
    result
}

/// Elements of a line of cache: a vector that lies across two takes twice as long to load.
pub(crate) const ALIGN: usize = 16;

/// `elements` of a caller's scratch from the start of a line on: it must have [`ALIGN`] more.
pub(crate) fn aligned(scratch: &mut [f32], elements: usize) -> &mut [f32] {
    let start = scratch.as_ptr().align_offset(ALIGN * 4).min(ALIGN);
    &mut scratch[start..start + elements]
}

/// Most elements of scratch that any kernel takes of a thread, heads of attention wider than 512
/// aside.
pub const SCRATCH_ELEMENTS: usize = 1 << 19;

/// Gives every thread of the current pool, and the calling one, its scratch, so that no step
/// allocates.
pub fn reserve() {
    rayon::broadcast(|_| with_scratch(SCRATCH_ELEMENTS, |_| ()));
    with_scratch(SCRATCH_ELEMENTS, |_| ());
}
