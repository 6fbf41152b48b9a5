//! How well pictures show what was asked for: measured with CLIP's two towers.
//!
//! As Mix-of-Show scores its concepts (section 4.1): **text alignment** is CLIPScore (Hessel et al.
//! 2021, eq. 1), 2.5 times the cosine between a picture and what it was asked to show, where the
//! concept's words give way to the class word; **image alignment** is the mean cosine between
//! generated pictures and those that the concept was trained from. The towers are the model's own
//! where it brings both, so figures compare within one model, not between models.

mod alignment;
mod evaluate;
mod likeness;
mod towers;

pub use alignment::{Embedding, image_alignment, text_alignment};
pub use evaluate::{Error as EvaluationError, Evaluation, Scores};
pub use likeness::{Likeness, closest};
pub use towers::{Error, Result, Towers};
