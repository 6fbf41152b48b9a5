//! Callbacks: how far a call is, and whether it goes on.

use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;

use mixofshow::Progress;

use crate::error::text;

/// Told of the stage, of the parts of it that are done, and of how many there are. Anything but 0
/// ends the call with MOS_CANCELLED.
pub type MosWatch = Option<
    unsafe extern "C" fn(user: *mut c_void, stage: *const c_char, done: usize, of: usize) -> c_int,
>;

/// A callback with what is to be given to it.
#[derive(Clone, Copy)]
pub struct Watcher {
    pub watch: MosWatch,
    pub user: *mut c_void,
}

impl Watcher {
    /// Whether the call goes on.
    pub fn heed(&self, at: Progress<'_>) -> ControlFlow<()> {
        match at.subject {
            "" => self.tell(at.stage, at.done, at.of),
            // A stage is worked through one by one.
            subject => self.tell(&format!("{} {subject}", at.stage), at.done, at.of),
        }
    }

    /// As [`Watcher::heed`].
    pub fn tell(&self, stage: &str, done: usize, of: usize) -> ControlFlow<()> {
        let Some(watch) = self.watch else { return ControlFlow::Continue(()) };
        let stage = text(stage);
        // SAFETY: the program's own function, called as it asked to be.
        goes_on(unsafe { watch(self.user, stage.as_ptr(), done, of) })
    }
}

/// What the answer of a callback means.
pub fn goes_on(answer: c_int) -> ControlFlow<()> {
    match answer {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}
