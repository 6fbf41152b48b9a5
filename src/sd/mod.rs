//! A checkpoint's networks as graphs see them.

pub mod source;
