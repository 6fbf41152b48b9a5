//! Mergers of other methods, which look at the changes alone and not at what concepts read: for
//! comparison.

use faer::Mat;
use serde::{Deserialize, Serialize};

use super::{Change, Group};
use crate::random::philox::philox4x32_10;

/// How changes are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Their weighted sum (task arithmetic; Ilharco et al. 2023).
    Sum,
    /// Of each change the largest numbers, of these the ones with the sign that weighs more, their
    /// mean (TIES; Yadav et al. 2023).
    Ties,
    /// Numbers left out at random, the others as much larger, their sum (DARE; Yu et al. 2024).
    Dare,
}

/// A merger.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Merge {
    /// Which one.
    pub way: Way,
    /// The part of each change's numbers that is kept, above 0, 1 at most; of no meaning for sums.
    pub density: f64,
    /// Of what is left out at random.
    pub seed: u64,
}

impl Merge {
    /// With what was published, or is usual.
    pub fn new(way: Way) -> Merge {
        let density = match way {
            Way::Sum => 1.0,
            Way::Ties => 0.2,
            Way::Dare => 0.5,
        };
        Merge { way, density, seed: 0 }
    }
}

/// All changes of a group's layers.
pub(super) fn solve(group: &dyn Group, merge: Merge) -> Vec<Change> {
    let of_layer = |(layer, described): (usize, &super::Layer)| {
        let changes = group.weights().iter().enumerate().filter_map(|(concept, &weight)| {
            let change = group.change(concept, layer)?;
            Some((concept, weight, change.up * change.down))
        });
        let changes: Vec<(usize, f64, Mat<f64>)> = changes.collect();
        let key = name_key(&described.name, merge.seed);
        let merged = merged(&changes, (described.out, group.width()), merge, &|concept, at| {
            uniform(key, concept, at)
        });
        Change { left: Mat::identity(described.out, described.out), right: merged }
    };
    group.layers().iter().enumerate().map(of_layer).collect()
}

/// `draw` gives a number from 0 to 1 for a concept and a place.
fn merged(
    changes: &[(usize, f64, Mat<f64>)],
    (rows, columns): (usize, usize),
    merge: Merge,
    draw: &dyn Fn(usize, usize) -> f64,
) -> Mat<f64> {
    let kept: Vec<Vec<bool>> = changes
        .iter()
        .map(|(concept, _, change)| match merge.way {
            Way::Sum => vec![true; rows * columns],
            Way::Ties => largest(change, merge.density),
            Way::Dare => (0..rows * columns).map(|at| draw(*concept, at) < merge.density).collect(),
        })
        .collect();
    Mat::from_fn(rows, columns, |i, j| {
        let at = i * columns + j;
        let values = || {
            let own = changes.iter().zip(&kept).filter(|(_, kept)| kept[at]);
            own.map(|((_, weight, change), _)| (*weight, change[(i, j)]))
        };
        match merge.way {
            Way::Sum => values().map(|(weight, value)| weight * value).sum(),
            Way::Dare => {
                values().map(|(weight, value)| weight * value).sum::<f64>() / merge.density
            }
            Way::Ties => {
                let positive = values().map(|(_, value)| value).sum::<f64>() >= 0.0;
                let agrees = |value: f64| if positive { value > 0.0 } else { value < 0.0 };
                let agreeing = values().filter(|(_, value)| agrees(*value));
                let (sum, count) = agreeing
                    .fold((0.0, 0usize), |(sum, count), (w, value)| (sum + w * value, count + 1));
                sum / count.max(1) as f64
            }
        }
    })
}

/// Which numbers are among the largest, row by row; of equal ones the first.
fn largest(change: &Mat<f64>, density: f64) -> Vec<bool> {
    let (rows, columns) = (change.nrows(), change.ncols());
    let count = (density * (rows * columns) as f64) as usize;
    let size = |at: usize| change[(at / columns, at % columns)].abs();
    let mut order: Vec<usize> = (0..rows * columns).collect();
    order.sort_by(|a, b| size(*b).total_cmp(&size(*a)).then(a.cmp(b)));
    let mut kept = vec![false; rows * columns];
    order.iter().take(count).for_each(|at| kept[*at] = true);
    kept
}

/// FNV-1a of a layer's name, beside the seed.
fn name_key(name: &str, seed: u64) -> [u32; 2] {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    let key = hash ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    [key as u32, (key >> 32) as u32]
}

fn uniform(key: [u32; 2], concept: usize, at: usize) -> f64 {
    let [word, ..] = philox4x32_10([at as u32, (at as u64 >> 32) as u32, concept as u32, 0], key);
    f64::from(word) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        density: f64,
        weights: Vec<f64>,
        up: Vec<Vec<Vec<f64>>>,
        down: Vec<Vec<Vec<f64>>>,
        kept: Vec<Vec<Vec<f64>>>,
        sum: Vec<Vec<f64>>,
        ties: Vec<Vec<f64>>,
        dare: Vec<Vec<f64>>,
    }

    #[test]
    fn mergers_are_pefts() {
        let text = include_str!("../../../tests/fixtures/mergers.json");
        let case: Case = serde_json::from_str(text).unwrap();
        let matrix = |rows: &[Vec<f64>]| Mat::from_fn(rows.len(), rows[0].len(), |i, j| rows[i][j]);
        let changes: Vec<(usize, f64, Mat<f64>)> = (0..3)
            .map(|i| (i, case.weights[i], matrix(&case.up[i]) * matrix(&case.down[i])))
            .collect();
        let columns = case.sum[0].len();
        let draw = |concept: usize, at: usize| {
            1.0 - case.kept[concept][at / columns][at % columns] * (1.0 - 1e-9)
        };
        for (way, expected) in
            [(Way::Sum, &case.sum), (Way::Ties, &case.ties), (Way::Dare, &case.dare)]
        {
            let merge = Merge { density: case.density, ..Merge::new(way) };
            let found = merged(&changes, (case.sum.len(), columns), merge, &draw);
            let error = (&found - matrix(expected)).norm_max();
            assert!(error < 1e-12, "{way:?}: {error}");
        }
    }

    #[test]
    fn what_is_left_out_depends_on_the_layer_the_concept_and_the_seed() {
        let share = |key: [u32; 2], concept: usize| {
            (0..4000).filter(|at| uniform(key, concept, *at) < 0.3).count() as f64 / 4000.0
        };
        let key = name_key("a.to_q", 0);
        assert!((share(key, 0) - 0.3).abs() < 0.03);
        let first = |key, concept| (0..8).map(|at| uniform(key, concept, at)).collect::<Vec<_>>();
        assert_ne!(first(key, 0), first(key, 1));
        assert_ne!(first(key, 0), first(name_key("a.to_k", 0), 0));
        assert_ne!(first(key, 0), first(name_key("a.to_q", 1), 0));
        assert_eq!(first(key, 0), first(name_key("a.to_q", 0), 0));
    }
}
