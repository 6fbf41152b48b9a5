//! Whether what was predicted of pairs came: rank correlation, and how often chance does as well.

use serde::{Deserialize, Serialize};

use crate::random::philox::philox4x32_10;

/// Shuffles that tell how often chance does as well.
const SHUFFLES: u32 = 9999;
/// Pairs below which nothing is told.
const FEWEST: usize = 3;
/// Correlations that differ by less are the same up to rounding.
const SAME: f64 = 1e-9;

/// Some things in pairs: what was predicted of each, and what came. Rows and columns are the
/// things; the diagonal is of no meaning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// `[i][j]`
    pub predicted: Vec<Vec<f64>>,
    /// The same.
    pub measured: Vec<Vec<f64>>,
}

/// How well a prediction's order is that of what came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Spearman's rank correlation, -1 to 1; over several groups, the mean of theirs, each weighed
    /// by its pairs.
    pub correlation: f64,
    /// How often a prediction whose things were shuffled within their groups came as near to 1 or
    /// -1: pairs that have a thing in common are no independent ones, so it is things that are
    /// shuffled (Mantel's test).
    pub chance: f64,
    /// Over all groups.
    pub pairs: usize,
    /// Groups with pairs enough.
    pub groups: usize,
}

impl Agreement {
    /// Over `groups` of things; `directed`: (i, j) and (j, i) are two pairs, else both stand for
    /// one by their mean. None where no group has three pairs that differ.
    pub fn of(groups: &[Pairs], directed: bool) -> Option<Agreement> {
        let ranked: Vec<Ranked> =
            groups.iter().filter_map(|group| Ranked::of(group, directed)).collect();
        let pairs = ranked.iter().map(|group| group.places.len()).sum();
        if ranked.is_empty() {
            return None;
        }
        let mean = |shuffle: Option<u32>| {
            let of = |(at, group): (usize, &Ranked)| {
                let order = shuffle.map(|shuffle| shuffled(group.things, shuffle, at as u32));
                group.correlation(order.as_deref()) * group.places.len() as f64
            };
            ranked.iter().enumerate().map(of).sum::<f64>() / pairs as f64
        };
        let correlation = mean(None);
        let as_well = |shuffle: &u32| mean(Some(*shuffle)).abs() >= correlation.abs() - SAME;
        let count = (0..SHUFFLES).filter(as_well).count();
        let chance = (count + 1) as f64 / f64::from(SHUFFLES + 1);
        Some(Agreement { correlation, chance, pairs, groups: ranked.len() })
    }
}

/// One group with ranks in the place of its figures.
struct Ranked {
    things: usize,
    /// The pairs that count.
    places: Vec<[usize; 2]>,
    /// `[i][j]`, less their mean, over the root of the sum of their squares.
    predicted: Vec<Vec<f64>>,
    /// For each of `places`, the same.
    measured: Vec<f64>,
}

impl Ranked {
    /// None of too few pairs, and of figures that are all alike.
    fn of(group: &Pairs, directed: bool) -> Option<Ranked> {
        let things = group.predicted.len();
        let ordered = (0..things).flat_map(|i| (0..things).map(move |j| [i, j]));
        let places: Vec<[usize; 2]> =
            ordered.filter(|[i, j]| if directed { i != j } else { i < j }).collect();
        let figures = |of: &[Vec<f64>]| -> Option<Vec<f64>> {
            let at = |i: usize, j: usize| of.get(i)?.get(j).copied();
            let figure = |[i, j]: &[usize; 2]| match directed {
                true => at(*i, *j),
                false => Some((at(*i, *j)? + at(*j, *i)?) / 2.0),
            };
            places.iter().map(figure).collect()
        };
        let of_places = standard(&ranks(&figures(&group.predicted)?))?;
        let measured = standard(&ranks(&figures(&group.measured)?))?;
        let mut predicted = vec![vec![0.0; things]; things];
        for ([i, j], rank) in places.iter().zip(&of_places) {
            predicted[*i][*j] = *rank;
            if !directed {
                predicted[*j][*i] = *rank;
            }
        }
        (places.len() >= FEWEST).then_some(Ranked { things, places, predicted, measured })
    }

    /// With the prediction's things in another order, if one is given.
    fn correlation(&self, order: Option<&[usize]>) -> f64 {
        let at = |i: usize| order.and_then(|order| order.get(i).copied()).unwrap_or(i);
        let pairs = self.places.iter().zip(&self.measured);
        pairs.map(|([i, j], measured)| self.predicted[at(*i)][at(*j)] * measured).sum()
    }
}

/// From 0 on; equal ones have the mean of their ranks.
fn ranks(of: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..of.len()).collect();
    order.sort_by(|a, b| of[*a].total_cmp(&of[*b]));
    let mut ranks = vec![0.0; of.len()];
    let mut first = 0;
    for run in order.chunk_by(|a, b| of[*a] == of[*b]) {
        let mean = first as f64 + (run.len() - 1) as f64 / 2.0;
        run.iter().for_each(|i| ranks[*i] = mean);
        first += run.len();
    }
    ranks
}

/// Less their mean, their squares adding up to 1; none where all are alike.
fn standard(of: &[f64]) -> Option<Vec<f64>> {
    let mean = of.iter().sum::<f64>() / of.len().max(1) as f64;
    let size = of.iter().map(|x| (x - mean).powi(2)).sum::<f64>().sqrt();
    (size > 0.0).then(|| of.iter().map(|x| (x - mean) / size).collect())
}

/// The numbers below `count` in an order of chance, the same for the same numbers.
fn shuffled(count: usize, shuffle: u32, group: u32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let [random, ..] = philox4x32_10([shuffle, group, last as u32, 0], [0x5eed, 0]);
        // The bias of so few is far below what is told.
        order.swap(last, ((u64::from(random) * (last as u64 + 1)) >> 32) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of four things, by their pairs (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3).
    fn four(pairs: [f64; 6]) -> Vec<Vec<f64>> {
        let mut all = vec![vec![0.0; 4]; 4];
        let places = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]];
        for ([i, j], value) in places.into_iter().zip(pairs) {
            all[i][j] = value - 1.0;
            all[j][i] = value + 1.0;
        }
        all
    }

    #[test]
    fn correlations_by_hand() {
        // 1 - 6 * 6 / (6 * 35)
        let group = Pairs {
            predicted: four([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            measured: four([20.0, 10.0, 40.0, 30.0, 60.0, 50.0]),
        };
        let found = Agreement::of(std::slice::from_ref(&group), false).unwrap();
        assert!((found.correlation - 0.828_571_428_6).abs() < 1e-9, "{found:?}");
        assert_eq!((found.pairs, found.groups), (6, 1));
        // Ranks 1.5, 1.5, 3.5, 3.5, 5, 0 beside 0 to 5: 1.5 / sqrt(17.5 * 16.5)
        let tied = Pairs { measured: four([1.0, 1.0, 2.0, 2.0, 3.0, 0.0]), ..group.clone() };
        let found = Agreement::of(&[tied], false).unwrap();
        assert!((found.correlation - 1.5 / (17.5f64 * 16.5).sqrt()).abs() < 1e-9, "{found:?}");
        // Of two groups the mean.
        let against = Pairs { measured: four([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), ..group.clone() };
        let both = Agreement::of(&[group.clone(), against], false).unwrap();
        assert!((both.correlation - (0.828_571_428_6 - 1.0) / 2.0).abs() < 1e-9, "{both:?}");
        assert_eq!((both.pairs, both.groups), (12, 2));
        // What tells nothing.
        let flat = Pairs { measured: vec![vec![1.0; 4]; 4], ..group.clone() };
        assert_eq!(Agreement::of(&[flat], false), None);
        let two = Pairs { predicted: vec![vec![0.0; 2]; 2], measured: vec![vec![1.0; 2]; 2] };
        assert_eq!(Agreement::of(&[two, Pairs::default()], false), None);
        let directed = Agreement::of(&[group], true).unwrap();
        assert_eq!(directed.pairs, 12);
    }

    #[test]
    fn chance_is_what_shuffled_things_do() {
        let value = |i: usize, j: usize| ((i * j * 7 + (i + j) * 3) % 11) as f64;
        let table = |add: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
            (0..7).map(|i| (0..7).map(|j| value(i, j) + add(i, j)).collect()).collect()
        };
        let same = Pairs { predicted: table(&|_, _| 0.0), measured: table(&|_, _| 0.0) };
        let found = Agreement::of(&[same], false).unwrap();
        assert!((found.correlation - 1.0).abs() < 1e-9 && found.chance < 0.01, "{found:?}");
        // Of three things in pairs, every sixth order does as well, or as badly.
        let three = |pairs: [f64; 3]| {
            let [a, b, c] = pairs;
            vec![vec![0.0, a, b], vec![a, 0.0, c], vec![b, c, 0.0]]
        };
        let few = Pairs { predicted: three([1.0, 2.0, 3.0]), measured: three([1.0, 2.0, 3.0]) };
        let found = Agreement::of(&[few], false).unwrap();
        assert!((found.chance - 1.0 / 3.0).abs() < 0.02, "{found:?}");
    }
}
