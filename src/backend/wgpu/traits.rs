//! What plans for a device, and their lowering, follow.

use serde::Serialize;

use super::matrices::Matrices;
use super::tuned::Tuned;
use crate::graph::Limits;

/// Which form of the heavy kernels a device runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Tiles staged in workgroup memory.
    Staged,
    /// As `Staged`, but matmuls with f16 weights are made of cooperative matrices, and attention
    /// where weights are f16, unless gradients are to be exact or sums of activations are taken:
    /// factors are rounded to f16.
    Matrices(Matrices),
}

impl Schedule {
    /// As reports and JSON call it.
    pub fn name(self) -> &'static str {
        match self {
            Schedule::Staged => "staged",
            Schedule::Matrices(_) => "matrices",
        }
    }
}

/// What plans and their lowering follow: limits of the device, the schedule that device or user
/// prefer, and the sizes of its kernels.
#[derive(Clone, Copy, Debug)]
pub struct Traits {
    /// Largest bindings and buffers, and their alignment.
    pub limits: Limits,
    /// Bytes of workgroup memory that a kernel may have.
    pub workgroup_memory: usize,
    /// The form of the heavy kernels.
    pub schedule: Schedule,
    /// Activations are kept in f16 by graphs that allow it.
    pub halves: bool,
    /// Tile sizes and the like.
    pub tuned: Tuned,
}
