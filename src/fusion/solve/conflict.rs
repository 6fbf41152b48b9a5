//! Which concepts will be in each other's way, told from what they read and want, before any
//! picture.
//!
//! If two concepts alone were fused, without a ridge, least squares would miss tr(E (G_i : G_j)
//! E^T), with E = T_i - T_j, what they want differently, and G_i : G_j = G_i (G_i + G_j)^-1 G_j,
//! the parallel sum of their inputs' sums: large along directions that both read, nothing along
//! those that one alone reads. So it is the overlap of their inputs weighed by the difference of
//! what they want, in the units of the residuals. No distillation and no third concept is in it.

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};

use super::{Factors, Group, energy, inner, stack};
use crate::fusion::Result;
use crate::watch::{Progress, Watch, heed};

/// Groups that are looked at: evenly spread over those that are not too wide.
const MOST_GROUPS: usize = 8;
/// Wider ones take long, and there are narrow ones beside them.
const WIDEST: usize = 1536;
/// Part of the mean diagonal that is added, so that sums can be decomposed.
const RIDGE: f64 = 1e-6;

/// Two concepts, summed over layers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::fusion) struct Pair {
    /// Squares that the two alone would miss.
    pub missed: f64,
    /// Squares of what both change.
    pub wanted: f64,
    /// How alike their inputs' sums are: the mean cosine over groups.
    pub alike: f64,
}

/// All pairs (0, 1), (0, 2), .. (1, 2), .. of the concepts of `groups`.
pub(in crate::fusion) fn pairs(groups: &[&dyn Group], watch: &mut Watch) -> Result<Vec<Pair>> {
    let narrow: Vec<&dyn Group> =
        groups.iter().copied().filter(|group| group.width() <= WIDEST).collect();
    let count = narrow.len().min(MOST_GROUPS);
    let concepts = narrow.first().map_or(0, |group| group.weights().len());
    let mut found = vec![Pair::default(); concepts * concepts.saturating_sub(1) / 2];
    for at in 0..count {
        heed(watch(Progress::new("conflicts", at, count)))?;
        let group = narrow[at * narrow.len() / count];
        let gram = |concept| Ok::<_, crate::fusion::Error>(group.inputs(concept)?.moments());
        let mut pair = found.iter_mut();
        for i in 0..concepts {
            let own = gram(i)?.into_gram();
            for j in i + 1..concepts {
                let other = gram(j)?.into_gram();
                let Some(pair) = pair.next() else { continue };
                add(pair, group, [i, j], [&own, &other]);
                pair.alike += cosine(&own, &other) / count as f64;
            }
        }
    }
    Ok(found)
}

fn cosine(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    let sizes = a.norm_l2() * b.norm_l2();
    if sizes > 0.0 { inner(a, b) / sizes } else { 0.0 }
}

/// Adds what a group's layers say.
fn add(pair: &mut Pair, group: &dyn Group, [i, j]: [usize; 2], [own, other]: [&Mat<f64>; 2]) {
    let width = group.width();
    let mut both = own + other;
    let mean = (0..width).map(|k| both[(k, k)]).sum::<f64>() / width.max(1) as f64;
    (0..width).for_each(|k| both[(k, k)] += RIDGE * mean);
    let Ok(decomposed) = both.llt(Side::Lower) else { return };
    for layer in 0..group.layers().len() {
        let changes = [group.change(i, layer), group.change(j, layer)];
        let wanted = |change: &Option<Factors>, gram: &Mat<f64>| {
            change.as_ref().map_or(0.0, |change| {
                energy(&change.up, &((&change.down * gram) * change.down.transpose()))
            })
        };
        let all = wanted(&changes[0], own) + wanted(&changes[1], other);
        if all <= 0.0 {
            continue;
        }
        // E = left right.
        let signed = changes.iter().zip([1.0, -1.0]).filter_map(|(change, sign)| {
            let change = change.as_ref()?;
            Some((&change.up * faer::Scale(sign), &change.down))
        });
        let (ups, downs): (Vec<Mat<f64>>, Vec<&Mat<f64>>) = signed.unzip();
        let out = ups.first().map_or(0, |up| up.nrows());
        let left = super::beside(&ups.iter().collect::<Vec<_>>(), out);
        let right = stack(&downs, width);
        let seen = decomposed.solve((&right * other).transpose());
        pair.missed += energy(&left, &((&right * own) * seen)).max(0.0);
        pair.wanted += all;
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::super::{Exact, Layer, Measures, Solver, Towards, solve};
    use super::*;
    use crate::fusion::statistics::Statistics;
    use crate::unwatched;

    const WIDTH: usize = 8;

    /// Two concepts: how far the second's inputs are those of the first, and its change the
    /// other's.
    struct Two {
        layers: [Layer; 1],
        same_inputs: f32,
        same_change: f64,
    }

    impl Group for Two {
        fn name(&self) -> &str {
            "two"
        }

        fn width(&self) -> usize {
            WIDTH
        }

        fn layers(&self) -> &[Layer] {
            &self.layers
        }

        fn weights(&self) -> &[f64] {
            &[1.0, 1.0]
        }

        fn inputs(&self, index: usize) -> Result<Cow<'_, Statistics>> {
            let value = |r: usize, c: usize| ((r * 31 + c * 17 + 7) % 23) as f32 / 11.0 - 1.0;
            let row = |r: usize| {
                (0..WIDTH).map(move |c| {
                    // Each has half of the channels to itself.
                    let share = match (index, c < WIDTH / 2) {
                        (0, true) | (1, false) => 1.0,
                        _ => self.same_inputs,
                    };
                    share * value(r, c)
                })
            };
            Ok(Cow::Owned(Statistics::from_samples(WIDTH, (0..40).flat_map(row).collect())))
        }

        fn change(&self, index: usize, _: usize) -> Option<Factors> {
            let value = |i: usize, j: usize| ((i * 5 + j * 3 + 1) % 7) as f64 - 3.0;
            let down = Mat::from_fn(2, WIDTH, value);
            let up = Mat::from_fn(5, 2, |i, j| match index {
                0 => value(i, j),
                _ => self.same_change * value(i, j) + (1.0 - self.same_change) * value(j, i + 2),
            });
            Some(Factors { up, down })
        }

        fn keep(&self) -> Result<[Option<Cow<'_, Statistics>>; 2]> {
            Ok([None, None])
        }
    }

    fn two(same_inputs: f32, same_change: f64) -> (Two, f64) {
        let two = Two { layers: [Layer { name: "two".into(), out: 5 }], same_inputs, same_change };
        let pair = pairs(&[&two as &dyn Group], &mut unwatched).unwrap()[0];
        let predicted = pair.missed / pair.wanted;
        (two, predicted)
    }

    #[test]
    fn it_is_what_least_squares_of_the_two_would_miss() {
        for (same_inputs, same_change) in [(0.3, 0.0), (1.0, 0.0), (0.7, 0.5)] {
            let (two, predicted) = two(same_inputs, same_change);
            let exact = Exact { ridge: Some(1e-9), keep_weight: 0.0, ..Exact::default() };
            let solver = Solver::Exact(exact);
            let solved = solve(&two, solver, (1e-9, Towards::Base), &mut unwatched).unwrap();
            let measured = Measures::of(&two, &solved.changes).unwrap();
            let sum = |which: usize| -> f64 {
                measured.layers[0].energies.iter().map(|energies| energies[which]).sum()
            };
            let missed = sum(0) / sum(1);
            assert!((missed - predicted).abs() < 1e-3 * missed.max(1e-3), "{missed} {predicted}");
        }
    }

    #[test]
    fn who_reads_and_wants_alike_is_in_nobodys_way() {
        let apart = two(0.0, 0.0).1;
        let (some, much) = (two(0.3, 0.0).1, two(1.0, 0.0).1);
        assert!(apart < 1e-3 && apart < some && some < much, "{apart} {some} {much}");
        assert!(two(1.0, 1.0).1 < 1e-9);
        assert!(two(1.0, 0.5).1 < much);
    }
}
