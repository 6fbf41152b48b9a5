//! The weights of a checkpoint's network, as graphs ask for them.

use std::ops::Range;
use std::sync::Arc;

use crate::checkpoint::{Component, DType};
use crate::graph::{ParameterError, ParameterInfo, ParameterSource, StoredAs};

/// A [`Component`] as a [`ParameterSource`]: read in pieces from the mapped file, whose pages go
/// once a parameter is used.
#[derive(Clone, Debug)]
pub struct ComponentSource(pub Component);

impl ParameterSource for ComponentSource {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        // Weights of fewer bits fit into f16.
        let stored = match self.0.dtype(name)?.widened() {
            DType::F16 => StoredAs::F16,
            DType::BF16 => StoredAs::BF16,
            _ => StoredAs::F32,
        };
        Some(ParameterInfo { shape: self.0.shape(name)?.to_vec(), stored })
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        let failed = |message: String| ParameterError::Read { name: name.into(), message };
        let view = self.0.tensor(name).map_err(|e| failed(e.to_string()))?;
        if range.end > view.len() || range.len() != into.len() {
            return Err(failed(format!("elements {range:?} of {} were asked for", view.len())));
        }
        view.write_f32(range, into);
        Ok(())
    }

    fn done_with(&self, name: &str) {
        self.0.release(name);
    }
}

/// The weights of several networks whose parameters have different names.
#[derive(Clone, Debug)]
pub struct Together(Vec<ComponentSource>);

impl Together {
    pub fn of<'a>(components: impl IntoIterator<Item = &'a Component>) -> Together {
        let source = |component: &Component| ComponentSource(component.clone());
        Together(components.into_iter().map(source).collect())
    }

    fn holder(&self, name: &str) -> Option<&ComponentSource> {
        self.0.iter().find(|source| source.info(name).is_some())
    }
}

impl ParameterSource for Together {
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

/// Weights that are stored as differences from those of another network, and whole where that has
/// none of their name.
pub struct Difference {
    pub stored: ComponentSource,
    pub base: Arc<dyn ParameterSource + Send>,
}

impl ParameterSource for Difference {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        self.stored.info(name)
    }

    fn read(
        &self,
        name: &str,
        range: Range<usize>,
        into: &mut [f32],
    ) -> Result<(), ParameterError> {
        self.stored.read(name, range.clone(), into)?;
        let Some(info) = self.base.info(name) else { return Ok(()) };
        let found = self.stored.info(name).map_or_else(Vec::new, |info| info.shape);
        let sides =
            |shape: &[usize]| shape.iter().copied().filter(|side| *side != 1).collect::<Vec<_>>();
        if sides(&found) != sides(&info.shape) {
            return Err(ParameterError::Shape { name: name.into(), expected: info.shape, found });
        }
        let mut base = vec![0.0; into.len()];
        self.base.read(name, range, &mut base)?;
        into.iter_mut().zip(base).for_each(|(value, base)| *value += base);
        Ok(())
    }

    fn done_with(&self, name: &str) {
        self.stored.done_with(name);
        self.base.done_with(name);
    }
}
