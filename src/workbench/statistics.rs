//! Is one thing slower than another, or was it chance?

use serde::Serialize;

/// The value below which a share of the samples lies; between two it is interpolated.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// How times of one kernel stand to another's, measured in turns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Median of the ratios of neighbouring measurements, this one over the other.
    pub ratio: f64,
    /// Where the ratio lies with a certainty of 99 %, by resampling.
    pub interval: [f64; 2],
    /// How probable such a difference were by chance (Wilcoxon's signed ranks).
    pub p: f64,
    /// How far the first kernel's times stand from its own, measured in the same turns.
    pub noise: f64,
    /// Measurements that it comes of.
    pub rounds: usize,
    /// Whether it is one: neither chance nor below a hundredth, nor within the noise.
    pub significant: bool,
}

/// Differences below this are not told: machines are not steadier.
const LEAST: f64 = 0.01;
const CHANCE: f64 = 0.01;

/// Measurements below which no difference is certain, however great it is.
pub const ENOUGH: usize = 9;

impl Difference {
    /// Of triples that were measured one right after the other: this, the other, and the other
    /// once more, in so many parts of about as many rounds, between which something was changed
    /// that should not count.
    pub fn beside(this: &[f64], other: &[f64], again: &[f64], parts: usize) -> Difference {
        let own = Difference::of(again, other);
        let mut found = Difference::of(this, other);
        found.noise = own.interval.iter().map(|bound| bound.ln().abs()).fold(0.0, f64::max);
        // Against both: what moves a kernel beside itself moves it beside others, too.
        let [a, b] = [other, again].map(|of| Difference::of(this, of));
        found.significant = a.significant
            && b.significant
            && (a.ratio > 1.0) == (b.ratio > 1.0)
            && found.ratio.ln().abs() > found.noise
            && in_each_part(this, other, again, parts, found.ratio > 1.0);
        found
    }

    /// Of pairs that were measured one right after the other.
    pub fn of(this: &[f64], other: &[f64]) -> Difference {
        let logs: Vec<f64> = this
            .iter()
            .zip(other)
            .map(|(a, b)| (a / b).ln())
            .filter(|log| log.is_finite())
            .collect();
        let p = signed_ranks(&logs);
        let interval = resampled(&logs).map(f64::exp);
        let ratio = quantile(&logs, 0.5).exp();
        let apart = interval[0] > 1.0 || interval[1] < 1.0;
        let significant = p < CHANCE && apart && (ratio.ln().abs() >= (1.0 + LEAST).ln());
        Difference { ratio, interval, p, noise: 0.0, rounds: logs.len(), significant }
    }

    /// In words.
    pub fn told(&self) -> String {
        let [low, high] = self.interval.map(|bound| 100.0 * (bound - 1.0));
        let by = 100.0 * (self.ratio - 1.0);
        match self.significant {
            _ if self.rounds < ENOUGH => {
                format!("too few rounds to tell, which takes {ENOUGH} ({low:+.1} to {high:+.1} %)")
            }
            // One that is certain and too small to matter is none.
            false if (low > 0.0 || high < 0.0) && low.min(-high) < -100.0 * LEAST => {
                format!("not certain ({low:+.1} to {high:+.1} %): more rounds may tell")
            }
            false => format!("no difference ({low:+.1} to {high:+.1} %)"),
            true if by > 0.0 => format!("{by:.1} % slower ({low:+.1} to {high:+.1} %)"),
            true => format!("{:.1} % faster ({low:+.1} to {high:+.1} %)", -by),
        }
    }
}

/// Which of `parts` a round is in.
pub(super) fn part_of(round: usize, rounds: usize, parts: usize) -> usize {
    round * parts / rounds.max(1)
}

/// Whether each part by itself says the same, by at least half of what is told at all.
fn in_each_part(this: &[f64], other: &[f64], again: &[f64], parts: usize, is_slower: bool) -> bool {
    let rounds = this.len().min(other.len()).min(again.len());
    (0..parts).all(|part| {
        let logs: Vec<f64> = (0..rounds)
            .filter(|&round| part_of(round, rounds, parts) == part)
            .map(|round| (this[round] / (other[round] * again[round]).sqrt()).ln())
            .collect();
        let by = quantile(&logs, 0.5) * if is_slower { 1.0 } else { -1.0 };
        by > LEAST / 2.0
    })
}

/// Two-sided probability that values are symmetric about 0, by the ranks of their magnitudes.
fn signed_ranks(values: &[f64]) -> f64 {
    let mut ordered: Vec<f64> = values.iter().copied().filter(|value| *value != 0.0).collect();
    ordered.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let count = ordered.len() as f64;
    if ordered.len() < 6 {
        return 1.0;
    }
    let (mut positive, mut ties, mut at) = (0.0, 0.0, 0);
    while at < ordered.len() {
        let same = ordered[at..].iter().take_while(|v| v.abs() == ordered[at].abs()).count();
        let rank = at as f64 + (same as f64 + 1.0) / 2.0;
        let above = ordered[at..at + same].iter().filter(|value| **value > 0.0).count();
        positive += rank * above as f64;
        ties += (same as f64).powi(3) - same as f64;
        at += same;
    }
    let mean = count * (count + 1.0) / 4.0;
    let variance = count * (count + 1.0) * (2.0 * count + 1.0) / 24.0 - ties / 48.0;
    let z = ((positive - mean).abs() - 0.5).max(0.0) / variance.sqrt();
    1.0 - libm::erf(z / std::f64::consts::SQRT_2)
}

/// The interval of 99 % of the median, from samples drawn again and again.
fn resampled(values: &[f64]) -> [f64; 2] {
    const TIMES: usize = 1000;
    if values.is_empty() {
        return [f64::NAN; 2];
    }
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = || {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % values.len()
    };
    let medians: Vec<f64> = (0..TIMES)
        .map(|_| {
            let again: Vec<f64> = (0..values.len()).map(|_| values[draw()]).collect();
            quantile(&again, 0.5)
        })
        .collect();
    [quantile(&medians, 0.005), quantile(&medians, 0.995)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workbench::spec::noise;

    /// Times around 1, with the long tail upwards that machines have, and slow drifts.
    fn times(name: &str, factor: f64) -> Vec<f64> {
        let one = |i: usize| {
            let drift = 0.1 * (i as f64 / 7.0).sin();
            let tail = noise(name, 1000 + i).abs().powi(20) * 0.3;
            factor * (1.0 + drift) * (1.0 + 0.01 * noise(name, i) + tail)
        };
        (0..30).map(one).collect()
    }

    #[test]
    fn the_same_twice_is_no_difference() {
        let told = (0..200)
            .filter(|run| {
                let [a, b, c] = ["a", "b", "c"].map(|name| times(&format!("{name}{run}"), 1.0));
                Difference::beside(&a, &b, &c, 3).significant
            })
            .count();
        assert!(told <= 2, "{told} of 200");
    }

    #[test]
    fn three_hundredths_are_told_apart() {
        let told = (0..50)
            .filter(|run| {
                let a = times(&format!("a{run}"), 1.03);
                let [b, c] = ["b", "c"].map(|name| times(&format!("{name}{run}"), 1.0));
                let found = Difference::beside(&a, &b, &c, 3);
                found.significant && (found.ratio - 1.03).abs() < 0.015
            })
            .count();
        assert!(told >= 40, "{told} of 50");
    }

    /// Fewer rounds cannot tell, and must not say that there is no difference.
    #[test]
    fn few_rounds_do_not_tell() {
        let pairs = |count: usize| {
            let slow: Vec<f64> = (0..count).map(|i| 10.0 + 0.01 * i as f64).collect();
            let fast: Vec<f64> = (0..count).map(|i| 1.0 + 0.001 * (i as f64).sin()).collect();
            Difference::beside(&fast, &slow, &slow, 1)
        };
        let few = pairs(ENOUGH - 1);
        assert!(!few.significant && few.told().starts_with("too few rounds"), "{}", few.told());
        let enough = pairs(ENOUGH);
        assert!(enough.significant && enough.told().contains("faster"), "{}", enough.told());
    }

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[1.0, 2.0], 0.25), 1.25);
        // 10 of 10 positive: 2 / 2^10 exactly, about that by the normal curve.
        let all: Vec<f64> = (1..=10).map(f64::from).collect();
        assert!((signed_ranks(&all) - 0.002).abs() < 0.005);
    }
}
