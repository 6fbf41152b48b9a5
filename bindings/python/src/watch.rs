//! Progress callbacks and Ctrl-C: the library's watch, asked in Python.

use std::ops::ControlFlow;

use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::errors::Raise;

/// Asks Python whether a call goes on, and keeps what was raised there.
#[derive(Default)]
pub struct Watcher {
    progress: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

impl Watcher {
    /// With a callback `progress(stage, done, of)`, if there is one. Ctrl-C is heeded either way.
    pub fn new(progress: Option<Py<PyAny>>) -> Watcher {
        Watcher { progress, raised: None }
    }

    /// Whether the call goes on. Without the GIL held.
    pub fn heed(&mut self, stage: &str, done: usize, of: usize) -> ControlFlow<()> {
        if self.raised.is_some() {
            return ControlFlow::Break(());
        }
        let asked = Python::attach(|py| {
            py.check_signals()?;
            let Some(progress) = &self.progress else { return Ok(true) };
            let answer = progress.bind(py).call1((stage, done, of))?;
            // Nothing (`None`) is what most callbacks return.
            Ok(!answer.cast::<PyBool>().is_ok_and(|answer| !answer.is_true()))
        });
        self.keep(asked)
    }

    /// Calls `tell`, whose exceptions end the call too.
    pub fn tell(&mut self, tell: impl FnOnce(Python<'_>) -> PyResult<()>) -> ControlFlow<()> {
        let told = Python::attach(|py| tell(py).map(|()| true));
        self.keep(told)
    }

    /// Whether signals came (Ctrl-C), of what waits and has no stage.
    pub fn heed_signals(&mut self) -> ControlFlow<()> {
        self.tell(|py| py.check_signals())
    }

    fn keep(&mut self, asked: PyResult<bool>) -> ControlFlow<()> {
        match asked {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(raised) => {
                self.raised = Some(raised);
                ControlFlow::Break(())
            }
        }
    }

    /// What the watched call came to: what was raised in Python comes before what it led to.
    pub fn end<T, E: Raise>(self, result: Result<T, E>) -> PyResult<T> {
        self.end_raised(result.map_err(Raise::raise))
    }

    /// As [`Watcher::end`], of an error that is an exception already.
    pub fn end_raised<T>(self, result: PyResult<T>) -> PyResult<T> {
        match self.raised {
            Some(raised) => Err(raised),
            None => result,
        }
    }
}
