//! Empty.
pub const MAX_WEIGHT: f32 = 10.0;
