//! The processor: every operation against its reference implementation, forward and backward,
//! whatever adapters there are; its weights, its memory and its instructions.

// Each of these is also a test of its own, on graphics adapters, and brings what it needs.
#![allow(clippy::duplicate_mod)]

#[path = "../backward.rs"]
mod backward;
#[path = "../kernels.rs"]
mod kernels;
#[path = "../outer_sums.rs"]
mod outer_sums;
mod programs;
#[path = "../regional.rs"]
mod regional;
