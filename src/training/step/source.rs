//! The weights of both networks as one source.

use std::ops::Range;

use crate::checkpoint::Component;
use crate::graph::{ParameterError, ParameterInfo, ParameterSource};
use crate::sd::source::ComponentSource;

/// A UNet's and a text tower's weights, whose names differ.
#[derive(Clone, Debug)]
pub(super) struct Networks([ComponentSource; 2]);

impl Networks {
    pub fn of(unet: &Component, text: &Component) -> Networks {
        Networks([unet, text].map(|component| ComponentSource(component.clone())))
    }

    fn holder(&self, name: &str) -> Option<&ComponentSource> {
        self.0.iter().find(|source| source.info(name).is_some())
    }
}

impl ParameterSource for Networks {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        self.0.iter().find_map(|source| source.info(name))
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let source =
            self.holder(name).ok_or_else(|| ParameterError::Missing { name: name.into() })?;
        source.read(name, range, into)
    }

    fn done_with(&self, name: &str) {
        if let Some(source) = self.holder(name) {
            source.done_with(name);
        }
    }
}
