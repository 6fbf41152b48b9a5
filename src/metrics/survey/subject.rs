//! Who is evaluated, beside what the settings say.

use crate::concept::Applied;
use crate::picture::{Mask, Picture};
use crate::pipeline::recipe::ConceptSource;

/// A picture that a concept was trained from.
#[derive(Clone, Debug)]
pub struct Reference {
    /// The picture.
    pub picture: Picture,
    /// White where the concept is; none: all of it is.
    pub mask: Option<Mask>,
}

/// A concept that is evaluated, beside what the settings say of it.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The pictures that it was trained from.
    pub references: Vec<Reference>,
    /// Its own file in use; none: the model knows it.
    pub own: Option<(Applied, ConceptSource)>,
}
