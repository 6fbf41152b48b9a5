//! Linear combinations of what a step can see, so that samplers read like their formulas and come
//! out as matrices.
use std::ops::{Add, Mul, Sub};

/// State slots: the sample and up to five tensors of its size that a sampler remembers.
pub const SLOTS: usize = 6;
/// What a new slot is made of: the old slots, the model's output, fresh noise.
pub const INPUTS: usize = SLOTS + 2;
/// New value of every slot (rows) as a combination of [`INPUTS`] (columns).
pub type Matrix = [[f32; INPUTS]; SLOTS];

/// Column of the model's output.
pub const OUTPUT_COLUMN: usize = SLOTS;
/// Column of the noise.
pub const NOISE_COLUMN: usize = SLOTS + 1;

/// Coefficients of the old slots, the model's output and the noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Combination([f64; INPUTS]);

const fn unit(column: usize) -> Combination {
    let mut coefficients = [0.0; INPUTS];
    coefficients[column] = 1.0;
    Combination(coefficients)
}

pub(super) const ZERO: Combination = Combination([0.0; INPUTS]);
/// The sample.
pub(super) const X: Combination = unit(0);
/// The sampler's memory, most recent first where it is a history.
pub(super) const H1: Combination = unit(1);
pub(super) const H2: Combination = unit(2);
pub(super) const H3: Combination = unit(3);
pub(super) const H4: Combination = unit(4);
/// A sample put aside.
pub(super) const SAVED: Combination = unit(5);
/// The model's output.
pub(super) const OUT: Combination = unit(OUTPUT_COLUMN);
pub(super) const NOISE: Combination = unit(NOISE_COLUMN);

impl Add for Combination {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }
}

impl Sub for Combination {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }
}

impl Mul<f64> for Combination {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        // A term that is absent stays so, even if the factor is infinite: the finite ones are what
        // must be checked.
        Self(self.0.map(|c| if c == 0.0 { 0.0 } else { c * factor }))
    }
}

impl Mul<f32> for Combination {
    type Output = Self;
    fn mul(self, factor: f32) -> Self {
        self * f64::from(factor)
    }
}

impl Combination {
    /// The coefficients of the sample and of the model's output.
    pub(super) fn of_sample(self) -> [f32; 2] {
        [self.0[0] as f32, self.0[OUTPUT_COLUMN] as f32]
    }

    pub(super) fn row(self) -> [f32; INPUTS] {
        self.0.map(|c| c as f32)
    }
}
