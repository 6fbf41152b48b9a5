//! Gradients through whole models.
