//! What linear layers read and write, reported to the builder of a graph.

use std::collections::HashSet;

use super::Layers;
use crate::graph::Tensor;

/// One linear layer as it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Full name of the layer.
    pub layer: String,
    /// `[.., in]`. Layers that read one tensor have the same input.
    pub input: Tensor,
    /// `[.., out]`: with low-rank updates, without the bias.
    pub output: Tensor,
}

/// Which layers report.
#[derive(Clone, Debug, Default)]
pub(super) struct Hooks {
    wanted: HashSet<String>,
    found: Vec<Hook>,
}

impl Layers<'_> {
    /// From now on, the linear layers of these full names are listed as they are built: see
    /// [`Layers::hooks`].
    pub fn hook(&mut self, layers: impl IntoIterator<Item = String>) {
        self.hooks.wanted.extend(layers);
    }

    /// The hooked layers that were built so far, in the order of computation.
    pub fn hooks(&self) -> &[Hook] {
        &self.hooks.found
    }

    pub(super) fn report(&mut self, input: Tensor, output: Tensor) {
        let layer = self.graph.path();
        if self.hooks.wanted.contains(&layer) {
            self.hooks.found.push(Hook { layer, input, output });
        }
    }
}
