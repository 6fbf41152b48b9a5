//! Ctrl-C: while a call of the library is watched, it ends in good order; a second one, or one at
//! any other time, ends the program at once.
use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mixofshow::checkpoint;
use mixofshow::{Cancelled, concept, fusion, metrics, pipeline, training, workbench};

/// Exit code of a program that was interrupted.
pub const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);
/// What is under way may be ended in the middle.
static BRIEFLY: AtomicBool = AtomicBool::new(false);
/// Calls under way that ask [`asked`].
static WATCHED: AtomicUsize = AtomicUsize::new(0);

/// While one of these is there, Ctrl-C is left to [`asked`].
pub struct Watched(());

/// As [`watched`], where nothing is lost by an end in the middle: a step that is very large, or a
/// file that nobody reads, is not waited for any longer than this after the first Ctrl-C.
pub fn watched_briefly() -> Watched {
    BRIEFLY.store(true, Ordering::Relaxed);
    watched()
}

/// How long such a step is waited for.
const GRACE: Duration = Duration::from_secs(10);

/// Ends the program when the step under way has not ended in time.
fn end_later() {
    std::thread::spawn(|| {
        std::thread::sleep(GRACE);
        if WATCHED.load(Ordering::Relaxed) > 0 {
            eprintln!("stopped in the middle of a step, which has not ended by itself");
            std::process::exit(i32::from(EXIT_CODE));
        }
    });
}

/// From now on what is under way asks [`asked`] again and again.
pub fn watched() -> Watched {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // A program that was started to outlive its terminal (nohup) is left as it is.
        if !hangup_is_ignored() {
            // Where it cannot be watched for, the key ends the program as ever.
            let _ = ctrlc::set_handler(|| {
                let second = ASKED.swap(true, Ordering::Relaxed);
                if second || WATCHED.load(Ordering::Relaxed) == 0 {
                    std::process::exit(i32::from(EXIT_CODE));
                }
                if BRIEFLY.load(Ordering::Relaxed) {
                    end_later();
                }
            });
        }
    });
    WATCHED.fetch_add(1, Ordering::Relaxed);
    Watched(())
}

impl Drop for Watched {
    fn drop(&mut self) {
        WATCHED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether to go on: what the library's watches answer.
pub fn asked() -> ControlFlow<()> {
    match ASKED.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

/// The signal that the terminal is gone is ignored, as under nohup: the handler would take that
/// back.
fn hangup_is_ignored() -> bool {
    const HANGUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (HANGUP - 1)) != 0)
}

/// Whether an error says that a watch ended the call.
pub fn is_cancelled(error: &(dyn Error + 'static)) -> bool {
    if let Some(boxed) = error.downcast_ref::<Box<training::Error>>() {
        return matches!(**boxed, training::Error::Cancelled(_));
    }
    error.is::<Cancelled>()
        || matches!(error.downcast_ref(), Some(pipeline::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(training::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(fusion::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(metrics::EvaluationError::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(metrics::survey::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(concept::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(checkpoint::Error::Cancelled(_)))
        || matches!(error.downcast_ref(), Some(workbench::Error::Cancelled))
}
