//! What should come out of a kernel.

/// A result as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Expected {
    pub value: f64,
    /// The magnitude of what was added up: rounding is relative to it.
    pub scale: f64,
}

impl Expected {
    pub fn add(&mut self, term: f64) {
        self.value += term;
        self.scale += term.abs();
    }
}
