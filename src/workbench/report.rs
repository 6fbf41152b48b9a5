//! What a check found, shape by shape.

use serde::Serialize;

use super::fault::{Fault, FaultKind};

/// What came of one shape.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// As the kind calls it.
    pub label: String,
    /// The sizes by name.
    pub sizes: String,
    /// Whether it was executed by the interpreter.
    pub interpreted: bool,
    /// Whether it ran on the device.
    pub on_device: bool,
    /// The worst error relative to what was added up, where something was compared.
    pub error: Option<f64>,
    /// What it may be.
    pub allowed: f64,
    /// The element that is off by most.
    pub at: Option<String>,
    /// Kinds of faults seen here, in order.
    pub faults: Vec<FaultKind>,
}

/// What came of all.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The kernel's file or name.
    pub kernel: String,
    /// What it was compared with.
    pub reference: String,
    /// The device, if it ran on one.
    pub device: Option<String>,
    /// Shape by shape.
    pub shapes: Vec<Checked>,
    /// All faults, each told once.
    pub faults: Vec<Fault>,
    /// What was left out, and why; what is no fault but may surprise.
    pub notes: Vec<String>,
    /// Why it was not looked at.
    pub error: Option<String>,
}

impl CheckReport {
    pub(super) fn empty(kernel: &str, reference: &str) -> CheckReport {
        CheckReport {
            kernel: kernel.into(),
            reference: reference.into(),
            device: None,
            shapes: Vec::new(),
            faults: Vec::new(),
            notes: Vec::new(),
            error: None,
        }
    }

    /// Of a kernel that could not be looked at.
    pub fn failed(kernel: &str, error: String) -> CheckReport {
        CheckReport { error: Some(error), ..CheckReport::empty(kernel, "") }
    }

    /// Whether it was looked at, and nothing was found.
    pub fn passed(&self) -> bool {
        self.faults.is_empty() && self.error.is_none() && !self.shapes.is_empty()
    }
}
