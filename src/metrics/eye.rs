//! What sees pictures.

use super::Embedding;
use super::error::Result;
use crate::picture::Picture;

/// Whoever sees pictures.
pub trait Eye {
    /// The embedding of a picture, made ready as the tower was trained: its short side fitted, its
    /// middle cut out.
    ///
    /// # Errors
    /// Whatever the device meets.
    fn see(&self, picture: &Picture) -> Result<Embedding>;
}
