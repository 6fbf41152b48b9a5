//! Where a graph's weights come from.

use std::ops::Range;

use crate::quant::Quant;

/// How the elements of a parameter are stored by its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// 2 bytes: IEEE's half precision.
    F16,
    /// 2 bytes: the upper half of an f32.
    BF16,
    /// 4 bytes.
    F32,
}

/// What a source knows of a parameter without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Row-major, as the file has it.
    pub shape: Vec<usize>,
    /// Its precision in the file.
    pub stored: StoredAs,
}

/// What can be wrong with a weight.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParameterError {
    /// The model has no weight of that name.
    #[error("parameter `{name}` is missing")]
    Missing {
        /// As the graph calls it.
        name: String,
    },
    /// The model's weight has another number of elements, or another shape.
    #[error("parameter `{name}`: the model expects shape {expected:?}, the file has {found:?}")]
    Shape {
        /// As the graph calls it.
        name: String,
        /// What is right in its place.
        expected: Vec<usize>,
        /// What was found.
        found: Vec<usize>,
    },
    /// The weight is there, but cannot be read.
    #[error("parameter `{name}`: {message}")]
    Read {
        /// As the graph calls it.
        name: String,
        /// What is wrong.
        message: String,
    },
}

/// Weights by name. A source reads lazily and in pieces, so that a model is never held twice.
pub trait ParameterSource: Sync {
    /// What is known of a weight without reading it; none if there is none of that name.
    fn info(&self, name: &str) -> Option<ParameterInfo>;

    /// Reads the elements `range` (row-major, in the shape of [`ParameterSource::info`]) as f32;
    /// `into` is as long as `range`.
    fn read(&self, name: &str, range: Range<usize>, into: &mut [f32])
    -> Result<(), ParameterError>;

    /// The blocks in which a matrix is stored, if it is in such as devices hold.
    fn quant(&self, _name: &str) -> Option<Quant> {
        None
    }

    /// Reads the whole blocks that hold the elements `range`, as they are stored: of a parameter
    /// for which there is a [`ParameterSource::quant`].
    fn read_blocks(
        &self,
        name: &str,
        _range: Range<usize>,
        _into: &mut [u8],
    ) -> Result<(), ParameterError> {
        let message = "it is not stored in blocks".into();
        Err(ParameterError::Read { name: name.into(), message })
    }

    /// Nobody will read this parameter again soon: pages of a mapped file may go.
    fn done_with(&self, _name: &str) {}
}

/// Checks that `source` has `name` with the elements of `shape`. Extents of 1 may stand anywhere (a
/// 1x1 convolution is a linear layer), everything else must agree.
pub fn expect(
    source: &dyn ParameterSource,
    name: &str,
    shape: &[usize],
) -> Result<ParameterInfo, ParameterError> {
    let info = source.info(name).ok_or_else(|| ParameterError::Missing { name: name.into() })?;
    let squeezed = |dims: &[usize]| dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    if squeezed(&info.shape) != squeezed(shape) {
        return Err(ParameterError::Shape {
            name: name.into(),
            expected: shape.to_vec(),
            found: info.shape,
        });
    }
    Ok(info)
}
