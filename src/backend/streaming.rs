//! Which weights of a plan stay on a device and which come anew in each run, so that all of it is
//! within a budget: the plan's steps are cut into blocks, and each block's weights that do not stay
//! are brought to a place of their own before it runs.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::ops::Range;

use super::{Held, TooLittle};

/// Weights of fewer bytes stay in any case.
const SMALL: u64 = 64 << 10;
/// A block's weights are as large as this where the budget allows: what each block costs besides
/// is little against that.
const BLOCK: u64 = 64 << 20;
/// Where a weight may begin in its place.
const ALIGNMENT: u64 = 256;

/// A weight that a step reads, and its bytes.
pub(super) type Use<K> = (K, u64);

/// How the weights of a plan are held.
#[derive(Debug)]
pub(super) struct Stream<K> {
    /// In the order in which they run.
    pub blocks: Vec<Block<K>>,
    /// Bytes of each of the places for what comes and goes; 0 where all stays.
    pub place: u64,
    pub held: Held,
    comes: HashSet<K>,
}

/// Steps that run one after another on weights that came for them.
#[derive(Debug, PartialEq)]
pub(super) struct Block<K> {
    pub steps: Range<usize>,
    /// What comes, and where in its place it begins.
    pub weights: Vec<(K, u64)>,
}

/// Bytes of all that steps read, each weight once.
pub(super) fn bytes_of_all<K: Eq + Hash>(steps: Vec<Vec<Use<K>>>) -> u64 {
    let mut seen = HashSet::new();
    let uses = steps.into_iter().flatten();
    uses.filter_map(|(key, bytes)| seen.insert(key).then_some(bytes)).sum()
}

fn aligned(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

impl<K: Clone + Eq + Hash> Stream<K> {
    /// Plans for steps that read weights, as they run, with `places` for blocks' weights at a time,
    /// in no more than `within` bytes; the least that would do where that is too little. A step
    /// that is `glued` stays in one block with the next. The first `once` steps are in blocks of
    /// their own, which run once.
    pub fn plan(
        steps: &[Vec<Use<K>>],
        once: usize,
        glued: &dyn Fn(usize) -> bool,
        places: u64,
        within: u64,
    ) -> Result<Stream<K>, TooLittle> {
        let mut order: Vec<Use<K>> = Vec::new();
        let mut seen = HashSet::new();
        for (key, bytes) in steps.iter().flatten() {
            if seen.insert(key.clone()) {
                order.push((key.clone(), *bytes));
            }
        }
        let all: u64 = order.iter().map(|(_, bytes)| bytes).sum();
        if all <= within {
            let held = Held { stays: all, blocks: 1, ..Held::default() };
            let blocks = vec![Block { steps: 0..steps.len(), weights: Vec::new() }];
            return Ok(Stream { blocks, place: 0, held, comes: HashSet::new() });
        }
        let small: u64 = order.iter().map(|(_, bytes)| bytes).filter(|b| **b < SMALL).sum();
        let groups = groups(steps, glued);
        let large = |group: &Range<usize>| -> u64 {
            let mut seen = HashSet::new();
            let uses = steps[group.clone()].iter().flatten();
            let uses = uses.filter(|(key, bytes)| *bytes >= SMALL && seen.insert(key));
            uses.map(|(_, bytes)| aligned(*bytes)).sum()
        };
        let largest = groups.iter().map(large).max().unwrap_or(0);
        let least = small + places * largest;
        if least > within {
            return Err(TooLittle { least });
        }
        // No more than a quarter of the budget: what stays need not come.
        let place = largest.max(BLOCK.min(within / 4 / places.max(1)) / ALIGNMENT * ALIGNMENT);
        let place = if small + places * place > within { largest } else { place };
        let stays = staying(&order, within - small - places * place);
        let kept: u64 = order.iter().filter(|(k, _)| stays.contains(k)).map(|(_, b)| b).sum();
        let blocks = blocks(steps, once, groups, &stays, place);
        let bytes: HashMap<&K, u64> = order.iter().map(|(key, bytes)| (key, *bytes)).collect();
        let each_run = blocks.iter().filter(|block| block.steps.end > once);
        let streamed = each_run.flat_map(|block| &block.weights);
        let held = Held {
            stays: kept,
            places: places * place,
            streamed: streamed.map(|(key, _)| bytes.get(key).copied().unwrap_or(0)).sum(),
            blocks: blocks.iter().filter(|block| block.steps.end > once).count(),
            host: 0,
        };
        let comes = blocks.iter().flat_map(|block| &block.weights).map(|(key, _)| key.clone());
        let comes = comes.collect();
        Ok(Stream { blocks, place, held, comes })
    }

    /// Whether a weight is brought before a block.
    pub fn comes(&self, key: &K) -> bool {
        self.comes.contains(key)
    }
}

/// Steps that stay together.
fn groups<K>(steps: &[Vec<Use<K>>], glued: &dyn Fn(usize) -> bool) -> Vec<Range<usize>> {
    let mut groups = Vec::with_capacity(steps.len());
    let mut start = 0;
    for step in 0..steps.len() {
        if step + 1 == steps.len() || !glued(step) {
            groups.push(start..step + 1);
            start = step + 1;
        }
    }
    groups
}

/// What stays in `room` besides what is small: the same share of the weights all along, so that
/// what comes has as much to hide behind everywhere.
fn staying<K: Clone + Eq + Hash>(order: &[Use<K>], room: u64) -> HashSet<K> {
    let is_large = |(_, bytes): &&Use<K>| *bytes >= SMALL;
    let large: u64 = order.iter().filter(is_large).map(|(_, bytes)| bytes).sum();
    let share = room as f64 / large.max(1) as f64;
    let (mut passed, mut kept) = (0, 0);
    let mut stays = HashSet::new();
    for (key, bytes) in order {
        if *bytes < SMALL {
            stays.insert(key.clone());
            continue;
        }
        passed += bytes;
        if kept + bytes <= room && (kept + bytes) as f64 <= passed as f64 * share {
            kept += bytes;
            stays.insert(key.clone());
        }
    }
    stays
}

/// Cuts the steps where the weights that come no longer fit into one place.
fn blocks<K: Clone + Eq + Hash>(
    steps: &[Vec<Use<K>>],
    once: usize,
    groups: Vec<Range<usize>>,
    stays: &HashSet<K>,
    place: u64,
) -> Vec<Block<K>> {
    let mut blocks: Vec<Block<K>> = Vec::new();
    let mut end = 0;
    for group in groups {
        let uses = steps[group.clone()].iter().flatten();
        let coming: Vec<&Use<K>> = uses.filter(|(key, _)| !stays.contains(key)).collect();
        let is_new = |weights: &[(K, u64)], key: &K| weights.iter().all(|(known, _)| known != key);
        if let Some(block) = blocks.last_mut().filter(|_| group.start != once) {
            let (mut weights, mut fits) = (block.weights.clone(), end);
            for (key, bytes) in &coming {
                if is_new(&weights, key) {
                    weights.push((key.clone(), fits));
                    fits += aligned(*bytes);
                }
            }
            if fits <= place {
                (block.weights, end) = (weights, fits);
                block.steps.end = group.end;
                continue;
            }
        }
        let mut block = Block { steps: group, weights: Vec::new() };
        end = 0;
        for (key, bytes) in coming {
            if is_new(&block.weights, key) {
                block.weights.push((key.clone(), end));
                end += aligned(*bytes);
            }
        }
        blocks.push(block);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Forty steps of a weight of 10 MiB and a bias each.
    fn steps() -> Vec<Vec<Use<usize>>> {
        (0..40).map(|i| vec![(i, 10 * MIB), (100 + i, 1024)]).collect()
    }

    fn plan(within: u64) -> Result<Stream<usize>, TooLittle> {
        Stream::plan(&steps(), 0, &|_| false, 2, within)
    }

    #[test]
    fn what_fits_stays() {
        let all = 40 * (10 * MIB + 1024);
        let stream = plan(all).unwrap();
        assert_eq!(stream.held, Held { stays: all, blocks: 1, ..Held::default() });
        assert_eq!(stream.blocks, [Block { steps: 0..40, weights: Vec::new() }]);
        let stream = plan(all - 1).unwrap();
        assert!(stream.held.streamed > 0 && stream.held.bytes() < all);
    }

    #[test]
    fn budgets_are_kept_and_every_step_runs_once_on_its_weights() {
        let all = 400 * MIB;
        let mut before = 0;
        for within in [21, 25, 60, 100, 200, 300, 399] {
            let stream = plan(within * MIB).unwrap();
            assert!(stream.held.bytes() <= within * MIB, "{within}: {:?}", stream.held);
            assert!(stream.held.stays >= before, "{within}");
            before = stream.held.stays;
            // All but what is lost to whole weights and places is made use of.
            assert!(stream.held.streamed <= all - (within * MIB / 2).min(all) + 80 * MIB);
            let mut next = 0;
            let mut came = 0;
            for block in &stream.blocks {
                assert_eq!(block.steps.start, next);
                next = block.steps.end;
                let ends = block.weights.iter().map(|(_, at)| at + 10 * MIB);
                assert!(ends.max().unwrap_or(0) <= stream.place);
                assert!(block.weights.iter().all(|(key, _)| block.steps.contains(key)));
                came += block.weights.len() as u64 * 10 * MIB;
            }
            assert_eq!((next, came), (40, stream.held.streamed));
        }
        assert_eq!(plan(20 * MIB).unwrap_err().least, 20 * MIB + 40 * 1024);
    }

    #[test]
    fn what_is_glued_is_not_cut() {
        let of = |glue: bool, once, within: u64| {
            Stream::plan(&steps(), once, &|step| glue && step % 2 == 0, 1, within)
        };
        let stream = of(true, 0, 45 * MIB).unwrap();
        assert!(stream.blocks.len() > 5);
        assert!(stream.blocks.iter().all(|block| block.steps.start % 2 == 0));
        assert_eq!(of(false, 0, MIB).unwrap_err().least, 10 * MIB + 40 * 1024);
        assert_eq!(of(true, 0, MIB).unwrap_err().least, 20 * MIB + 40 * 1024);
        // What runs once counts for no run, and is cut off.
        let some = of(false, 3, 45 * MIB).unwrap();
        assert!(some.blocks.iter().any(|block| block.steps.start == 3));
        assert!(some.held.streamed < of(false, 0, 45 * MIB).unwrap().held.streamed);
    }
}
