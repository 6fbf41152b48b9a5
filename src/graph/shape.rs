//! Shapes of tensors.

use std::fmt;
use std::ops::Deref;

/// Extents of a tensor, outermost first; row-major.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The product of its sizes.
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// Extent of the innermost dimension (channels); 1 for a scalar.
    pub fn channels(&self) -> usize {
        self.0.last().copied().unwrap_or(1)
    }

    /// Number of rows of [`Shape::channels`] elements.
    pub fn rows(&self) -> usize {
        self.0[..self.0.len().saturating_sub(1)].iter().product()
    }

    /// The same shape with another innermost extent.
    pub fn with_channels(&self, channels: usize) -> Shape {
        let mut dims = self.0.clone();
        match dims.last_mut() {
            Some(last) => *last = channels,
            None => dims.push(channels),
        }
        Shape(dims)
    }

    /// `[batch, height, width, channels]`, or a message that says what was found.
    pub fn image(&self) -> Result<[usize; 4], String> {
        <[usize; 4]>::try_from(self.0.as_slice())
            .map_err(|_| format!("expected [batch, height, width, channels], found {self}"))
    }

    /// `[batch, tokens, channels]`, or a message that says what was found.
    pub fn tokens(&self) -> Result<[usize; 3], String> {
        <[usize; 3]>::try_from(self.0.as_slice())
            .map_err(|_| format!("expected [batch, tokens, channels], found {self}"))
    }
}

impl Deref for Shape {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(dims: [usize; N]) -> Self {
        Shape(dims.to_vec())
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Shape(dims.to_vec())
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Shape(dims)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
