//! The weights of a checkpoint's network, as graphs ask for them.

use std::ops::Range;

use crate::checkpoint::{Component, DType};
use crate::graph::{ParameterError, ParameterInfo, ParameterSource, StoredAs};

/// A [`Component`] as a [`ParameterSource`]: read in pieces from the mapped file, whose pages go once a parameter is used.
#[derive(Clone, Debug)]
pub struct ComponentSource(pub Component);

impl ParameterSource for ComponentSource {
    fn info(&self, name: &str) -> Option<ParameterInfo> {
        let stored = match self.0.dtype(name)? {
            // Both 8-bit types fit into f16 without loss.
            DType::F16 | DType::F8E4M3 | DType::F8E5M2 => StoredAs::F16,
            DType::BF16 => StoredAs::BF16,
            _ => StoredAs::F32,
        };
        Some(ParameterInfo { shape: self.0.shape(name)?.to_vec(), stored })
    }

    fn read(&self, name: &str, range: Range<usize>, into: &mut [f32]) -> Result<(), ParameterError> {
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
