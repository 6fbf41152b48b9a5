//! What a call came to: a status, and for each thread the text of its last failure.

use std::cell::RefCell;
use std::error::Error;
use std::ffi::{CString, c_char};

use mixofshow::{Cancelled, checkpoint, concept, fusion, metrics, pipeline, training};

/// What a call came to.
#[allow(non_camel_case_types, reason = "named as C names them")]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MosStatus {
    /// It is done.
    MOS_OK = 0,
    /// It failed: mos_last_error() says why.
    MOS_ERROR = 1,
    /// Its callback ended it. Nothing is half written, and what was saved goes on later.
    MOS_CANCELLED = 2,
    /// A fault of the library itself, which was caught. Free the objects of the call, and no more.
    MOS_PANIC = 3,
}

/// How a call fails.
#[derive(Debug)]
pub struct Failure {
    pub status: MosStatus,
    pub words: String,
}

pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A failure in words that no room of the library has.
pub fn wrong(words: impl Into<String>) -> Failure {
    Failure { status: MosStatus::MOS_ERROR, words: words.into() }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        let status = match is_cancelled(&error) {
            true => MosStatus::MOS_CANCELLED,
            false => MosStatus::MOS_ERROR,
        };
        Failure { status, words: words(&error) }
    }
}

/// The error and its causes, as the program `mos` prints them.
fn words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Many errors name their cause themselves.
        if !words.contains(&text) {
            words += &format!(": {text}");
        }
        cause = error.source();
    }
    words
}

fn is_cancelled(error: &(dyn Error + 'static)) -> bool {
    error.is::<Cancelled>()
        || matches!(error.downcast_ref(), Some(pipeline::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(training::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(fusion::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(metrics::EvaluationError::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(concept::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(checkpoint::Error::Cancelled(_)))
}

thread_local! {
    static LAST: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// Keeps the text of a failure for [`mos_last_error`]; nothing: of a call that went well.
pub fn keep(words: Option<&str>) {
    let words = words.map(text);
    // Gone where the thread ends: then nobody asks.
    let _ = LAST.try_with(|last| *last.borrow_mut() = words);
}

/// Text for C, in which no 0 can stand.
pub fn text(words: &str) -> CString {
    CString::new(words.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// Why the last call of this thread failed, in one line or more; empty if it did not. It stands
/// until the next call of this thread.
#[unsafe(no_mangle)]
pub extern "C" fn mos_last_error() -> *const c_char {
    let pointer = LAST.try_with(|last| last.borrow().as_ref().map(|words| words.as_ptr()));
    pointer.ok().flatten().unwrap_or(c"".as_ptr())
}
