//! What makers of cards say of them.

use clap::ValueEnum;
use serde::Serialize;

/// Cards whose figures are public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Card {
    /// NVIDIA H200, SXM
    H200,
    /// NVIDIA GeForce RTX 4090
    Rtx4090,
}

/// What a card does at most, as its maker says.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figures {
    pub name: &'static str,
    /// TFLOP/s of dense products of f16 with sums in f32, and of f32 without matrices.
    pub matrices: f64,
    pub plain: f64,
    /// GB/s of its memory.
    pub gigabytes: f64,
    /// What workgroups are shared out to.
    pub multiprocessors: u32,
}

impl Card {
    pub fn figures(self) -> Figures {
        match self {
            Card::H200 => Figures {
                name: "NVIDIA H200",
                matrices: 989.0,
                plain: 67.0,
                gigabytes: 4800.0,
                multiprocessors: 132,
            },
            Card::Rtx4090 => Figures {
                name: "NVIDIA GeForce RTX 4090",
                matrices: 165.2,
                plain: 82.6,
                gigabytes: 1008.0,
                multiprocessors: 128,
            },
        }
    }
}
