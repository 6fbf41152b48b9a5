//! Everything random in a tuning run: numbers by seed, purpose and place, so that no generator's
//! history has to be kept.
//!
//! TrainingStep 700 of a run draws the same numbers whether or not the steps before it were made by this
//! process. Numbers come from Philox4x32-10 (see [`crate::random::philox`]): the key is the seed,
//! the counter is what a number is for.

use crate::random::philox::philox4x32_10;

/// What numbers are for. The discriminants go into the counter and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The order of the pictures in an epoch.
    Order = 1,
    Timestep = 2,
    Noise = 3,
    /// One number per channel, added to all of its noise.
    NoiseOffset = 4,
    /// The sample of the latents' distribution.
    Latents = 5,
    /// Where a picture is cut, how large it becomes and where it stands.
    Placement = 6,
    /// Which of a picture's placements is used.
    Variant = 7,
    Tags = 8,
    Template = 9,
    /// Words that start as noise.
    Words = 10,
    /// Down-projections of the updates.
    Updates = 11,
    /// The order in which predictions are trained.
    Lessons = 12,
    /// The seed that class pictures are counted from.
    ClassSeed = 13,
    /// Which numbers of an update's narrow side are dropped.
    Dropout = 14,
    /// Which of its ranks are.
    RankDropout = 15,
    /// Where concepts stand in scenes.
    Scenes = 16,
}

/// What is added to a purpose where it is about pictures of the class.
const CLASS: u32 = 1 << 8;

/// The numbers of one run.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    seed: u64,
    offset: u32,
}

impl Draws {
    pub fn new(seed: u64) -> Self {
        Draws { seed, offset: 0 }
    }

    /// Those for pictures of the class: other numbers for the same purposes and places.
    pub fn of_class(seed: u64) -> Self {
        Draws { seed, offset: CLASS }
    }

    /// The numbers for a purpose at place `index`, such as a step or a picture, from the first.
    pub fn at(&self, purpose: Purpose, index: u64) -> Numbers {
        Numbers {
            key: words(self.seed),
            purpose: purpose as u32 + self.offset,
            index: words(index),
            block: 0,
            ready: [0; 4],
            left: 0,
        }
    }
}

fn words(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

/// A sequence of random numbers.
#[derive(Clone, Debug)]
pub struct Numbers {
    key: [u32; 2],
    purpose: u32,
    index: [u32; 2],
    block: u32,
    ready: [u32; 4],
    left: usize,
}

impl Numbers {
    fn word(&mut self) -> u32 {
        if self.left == 0 {
            self.ready =
                philox4x32_10([self.block, self.purpose, self.index[0], self.index[1]], self.key);
            self.block = self.block.wrapping_add(1);
            self.left = 4;
        }
        self.left -= 1;
        self.ready.get(3 - self.left).copied().unwrap_or_default()
    }

    /// Uniform in [0, 1), in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        let (low, high) = (u64::from(self.word()), u64::from(self.word()));
        ((high << 32 | low) >> 11) as f64 * (-53f64).exp2()
    }

    /// `count` factors of dropout: 0 with the probability `share`, else 1 / (1 - share). One word
    /// for each, as a part of 2^32.
    pub fn kept(&mut self, count: usize, share: f32) -> impl Iterator<Item = f32> + '_ {
        let share = f64::from(share);
        let kept = (1.0 / (1.0 - share)) as f32;
        let below = move |word: u32| f64::from(word) * (-32f64).exp2() < share;
        (0..count).map(move |_| if below(self.word()) { 0.0 } else { kept })
    }

    /// A whole number below `count`; 0 if there is none.
    pub fn below(&mut self, count: usize) -> usize {
        let (low, high) = (u64::from(self.word()), u64::from(self.word()));
        // The upper half of the product: even to one part in 2^64 / count.
        ((u128::from(high << 32 | low) * count as u128) >> 64) as usize
    }

    /// Uniform between two ends.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// The numbers 0 .. `count` in random order (Fisher and Yates, from the end).
    pub fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        self.shuffle(&mut order);
        order
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }

    /// `count` standard normal numbers (Box and Muller 1958). The functions are our own and give
    /// the same bits everywhere.
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        let mut numbers = Vec::with_capacity(count + 1);
        while numbers.len() < count {
            // Of (0, 1]: the logarithm is finite.
            let radius = (-2.0 * libm::log(1.0 - self.unit())).sqrt();
            let angle = 2.0 * std::f64::consts::PI * self.unit();
            numbers
                .extend([(radius * libm::cos(angle)) as f32, (radius * libm::sin(angle)) as f32]);
        }
        numbers.truncate(count);
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_seed_purpose_and_place_and_on_nothing_else() {
        let first = |seed, purpose, index| Draws::new(seed).at(purpose, index).normal(4);
        let base = first(7, Purpose::Noise, 1 << 40);
        assert_eq!(base, first(7, Purpose::Noise, 1 << 40));
        let others = [
            first(8, Purpose::Noise, 1 << 40),
            first(7, Purpose::Latents, 1 << 40),
            first(7, Purpose::Noise, 1),
            Draws::of_class(7).at(Purpose::Noise, 1 << 40).normal(4),
        ];
        assert!(others.iter().all(|other| *other != base));
        let mut pieces = Draws::new(7).at(Purpose::Noise, 1 << 40);
        assert_eq!([pieces.normal(2), pieces.normal(2)].concat(), base);
    }

    /// The first counter's words, from the kernel with published answers.
    #[test]
    fn words_come_in_order() {
        let mut numbers = Draws::new(0x0123_4567_89ab_cdef).at(Purpose::Order, 5);
        let expected = philox4x32_10([0, 1, 5, 0], [0x89ab_cdef, 0x0123_4567]);
        assert_eq!([numbers.word(), numbers.word(), numbers.word(), numbers.word()], expected);
        assert_eq!(numbers.word(), philox4x32_10([1, 1, 5, 0], [0x89ab_cdef, 0x0123_4567])[0]);
    }

    #[test]
    fn distributions() {
        let mut numbers = Draws::new(1).at(Purpose::Timestep, 0);
        let mut counts = [0usize; 7];
        for _ in 0..7000 {
            counts[numbers.below(7)] += 1;
        }
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
        assert_eq!(numbers.below(0), 0);
        let kept: Vec<f32> = numbers.kept(4000, 0.25).collect();
        let dropped = kept.iter().filter(|factor| **factor == 0.0).count();
        assert!((900..1100).contains(&dropped), "{dropped}");
        assert!(kept.iter().all(|factor| [0.0, 4.0 / 3.0].contains(factor)));
        let units: Vec<f64> = (0..2000).map(|_| numbers.between(-1.0, 3.0)).collect();
        assert!(units.iter().all(|u| (-1.0..3.0).contains(u)));
        assert!((units.iter().sum::<f64>() / 2000.0 - 1.0).abs() < 0.1);
        let normal = numbers.normal(20001);
        let mean = normal.iter().map(|v| f64::from(*v)).sum::<f64>() / 20001.0;
        let square = normal.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / 20001.0;
        assert!(mean.abs() < 0.03 && (square - 1.0).abs() < 0.05, "{mean} {square}");
    }

    #[test]
    fn an_order_has_everything_once() {
        let draws = Draws::new(3);
        let mut order = draws.at(Purpose::Order, 0).order(20);
        assert_ne!(order, draws.at(Purpose::Order, 1).order(20));
        order.sort_unstable();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
        assert!(draws.at(Purpose::Order, 0).order(0).is_empty());
    }
}
