//! Noise that people can reproduce: which generator, which seed, which picture of a batch.
pub(crate) mod philox;
mod torch;

use std::fmt;
use std::str::FromStr;

pub use philox::Philox;
pub use torch::TorchRng;

/// Whose random numbers to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RngKind {
    /// torch's CPU generator, see [`TorchRng`].
    #[default]
    Torch,
    /// torch's CUDA generator, see [`Philox`].
    Philox,
}

/// A name that is no random generator's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown random generator `{0}`: expected `torch` or `philox`")]
pub struct UnknownRng(pub String);

impl FromStr for RngKind {
    type Err = UnknownRng;

    fn from_str(name: &str) -> Result<Self, UnknownRng> {
        match name.to_ascii_lowercase().as_str() {
            "torch" | "cpu" => Ok(Self::Torch),
            "philox" | "cuda" => Ok(Self::Philox),
            _ => Err(UnknownRng(name.into())),
        }
    }
}

impl fmt::Display for RngKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Torch => "torch",
            Self::Philox => "philox",
        })
    }
}

/// One stream of normal numbers. The first draw is the initial latents, the next ones are what
/// samplers add at their steps.
#[derive(Clone, Debug)]
pub enum NoiseSource {
    /// Boxed: the twister's state is 2.5 kB.
    Torch(Box<TorchRng>),
    /// See [`Philox`].
    Philox(Philox),
}

impl NoiseSource {
    /// A stream from its beginning.
    pub fn new(kind: RngKind, seed: u64) -> Self {
        match kind {
            RngKind::Torch => Self::Torch(Box::new(TorchRng::new(seed))),
            RngKind::Philox => Self::Philox(Philox::new(seed)),
        }
    }

    /// The next `n` standard normal numbers, in the order of a contiguous tensor: for latents
    /// [channels, height, width], as torch lays them out (channels first).
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        match self {
            Self::Torch(rng) => rng.normal(n),
            Self::Philox(rng) => rng.normal(n),
        }
    }
}

/// The streams of a batch: picture `i` has its own one, seeded `seed + i`, so that it is the same
/// picture alone. Equals diffusers given a list of generators. (Given a single generator, diffusers
/// draws all pictures from it at once: that is
/// `NoiseSource::new(kind, seed).normal(pictures * n)`.)
#[derive(Clone, Debug)]
pub struct BatchNoise(Vec<NoiseSource>);

impl BatchNoise {
    /// Streams for `pictures` pictures; seeds wrap around at 2^64.
    pub fn new(kind: RngKind, seed: u64, pictures: usize) -> Self {
        let seeds = (0..pictures).map(|i| seed.wrapping_add(i as u64));
        Self(seeds.map(|seed| NoiseSource::new(kind, seed)).collect())
    }

    /// The next `n` normal numbers of every picture, one picture after another: `pictures * n`
    /// numbers.
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        self.0.iter_mut().flat_map(|source| source.normal(n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fixture() -> Value {
        serde_json::from_str(include_str!("../../tests/fixtures/noise.json")).unwrap()
    }

    fn bits(value: &Value) -> Vec<u32> {
        let numbers = value.as_array().unwrap();
        numbers.iter().map(|n| n.as_u64().unwrap() as u32).collect()
    }

    /// Compares one draw with its fixture: both ends number by number (`ulps` apart at most), the
    /// whole by two sums.
    fn check(draw: &Value, values: &[f32], ulps: u32) {
        assert_eq!(values.len() as u64, draw["n"].as_u64().unwrap());
        let (head, tail) = (bits(&draw["head"]), bits(&draw["tail"]));
        assert!(!head.is_empty());
        let ends = head.iter().zip(values).chain(tail.iter().rev().zip(values.iter().rev()));
        for (want, got) in ends {
            let distance = want.abs_diff(got.to_bits());
            assert!(distance <= ulps, "{got} is not {}", f32::from_bits(*want));
        }
        if ulps == 0 {
            let weights = (0..).map(|i: u32| 2 * i + 1);
            let terms = values.iter().zip(weights).map(|(v, w)| v.to_bits().wrapping_mul(w));
            let checksum = terms.fold(0, u32::wrapping_add);
            assert_eq!(u64::from(checksum), draw["checksum"].as_u64().unwrap());
        }
        let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
        let weighted: f64 = (1..).zip(values).map(|(i, &v)| f64::from(v) * f64::from(i % 97)).sum();
        let slack = 1e-9 + 1e-6 * f64::from(ulps);
        assert!((sum - draw["sum"].as_f64().unwrap()).abs() < slack);
        assert!((weighted - draw["weighted"].as_f64().unwrap()).abs() < 100.0 * slack);
    }

    fn check_all(section: &str, kind: RngKind, ulps: u32) {
        let fixture = fixture();
        for case in fixture[section].as_array().unwrap() {
            let mut source =
                NoiseSource::new(kind, case["seed"].as_str().unwrap().parse().unwrap());
            for draw in case["draws"].as_array().unwrap() {
                check(draw, &source.normal(draw["n"].as_u64().unwrap() as usize), ulps);
            }
        }
    }

    #[test]
    fn torch_of_any_length_to_the_bit() {
        check_all("torch", RngKind::Torch, 0);
    }

    #[test]
    fn torch_draw_after_draw_to_the_bit() {
        check_all("sequences", RngKind::Torch, 0);
    }

    #[test]
    fn philox_as_numpy() {
        check_all("philox", RngKind::Philox, 1);
    }

    #[test]
    fn a_picture_of_a_batch_is_the_same_alone() {
        for kind in [RngKind::Torch, RngKind::Philox] {
            let mut batch = BatchNoise::new(kind, u64::MAX, 3);
            let (latents, step) = (batch.normal(64), batch.normal(5));
            let mut alone = NoiseSource::new(kind, 1);
            assert_eq!(latents[128..], alone.normal(64));
            assert_eq!(step[10..], alone.normal(5));
        }
    }

    #[test]
    fn names() {
        for kind in [RngKind::Torch, RngKind::Philox] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("cuda".parse(), Ok(RngKind::Philox));
        let error = "mt".parse::<RngKind>().unwrap_err().to_string();
        assert!(error.contains("`mt`") && error.contains("philox"));
    }
}
