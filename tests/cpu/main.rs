//! The processor: every operation against its reference implementation, forward and backward, whatever adapters there are; its
//! weights, its memory and its instructions.

#[path = "../backward.rs"]
mod backward;
#[path = "../kernels.rs"]
mod kernels;
#[path = "../outer_sums.rs"]
mod outer_sums;
mod programs;
#[path = "../regional.rs"]
mod regional;
