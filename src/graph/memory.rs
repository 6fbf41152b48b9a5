//! Packing of short-lived values into few buffers.

use std::cmp::Reverse;

/// A value that needs `size` bytes from step `start` to step `end` (inclusive) and must not share a
/// buffer with `conflicts` (numbers of other requests), because one kernel reads the one and writes
/// the other.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub size: u64,
    pub start: usize,
    pub end: usize,
    pub conflicts: Vec<usize>,
}

/// Bytes needed at step `time`.
pub(super) fn live_at(requests: &[Request], time: usize) -> u64 {
    requests.iter().filter(|r| (r.start..=r.end).contains(&time)).map(|r| r.size).sum()
}

/// The answer: sizes of the arenas, and for every request its arena and byte offset.
pub(super) struct Arena {
    pub sizes: Vec<u64>,
    pub offsets: Vec<(usize, u64)>,
}

/// What requests are sorted by, largest first.
type Order<'a> = &'a dyn Fn(&Request) -> (u64, u64);

/// Packs in several orders, and takes the packing that needs least: none of them is best for all
/// graphs. No arena exceeds `most` bytes unless one request alone does.
pub(super) fn pack(requests: &[Request], most: u64) -> Arena {
    let mut conflicts: Vec<Vec<usize>> = requests.iter().map(|r| r.conflicts.clone()).collect();
    for (i, request) in requests.iter().enumerate() {
        for &other in &request.conflicts {
            conflicts[other].push(i);
        }
    }
    let duration = |r: &Request| (r.end - r.start + 1) as u64;
    let orders: [Order<'_>; 5] = [
        &|r| (r.size, 0),
        &|r| (r.size, duration(r)),
        &|r| (r.size * duration(r), 0),
        &|r| (duration(r), r.size),
        &|_| (0, 0), // as the steps come
    ];
    let mut best: Option<Arena> = None;
    for key in orders {
        let mut order: Vec<usize> = (0..requests.len()).collect();
        order.sort_by_key(|&i| (Reverse(key(&requests[i])), i));
        for preference in [Preference::Oldest, Preference::Newest, Preference::Smallest] {
            let arena = place_in_order(requests, &conflicts, &order, preference, most);
            if best
                .as_ref()
                .is_none_or(|best| arena.sizes.iter().sum::<u64>() < best.sizes.iter().sum())
            {
                best = Some(arena);
            }
        }
    }
    best.unwrap_or(Arena { sizes: Vec::new(), offsets: Vec::new() })
}

/// Which arena is taken among those that would grow by the same.
#[derive(Clone, Copy)]
enum Preference {
    Oldest,
    Newest,
    Smallest,
}

/// Places requests in `order`, each where the arenas grow least.
fn place_in_order(
    requests: &[Request],
    conflicts: &[Vec<usize>],
    order: &[usize],
    preference: Preference,
    most: u64,
) -> Arena {
    let mut sizes: Vec<u64> = Vec::new();
    let mut members: Vec<Vec<Placed>> = Vec::new();
    let mut offsets: Vec<Option<(usize, u64)>> = vec![None; requests.len()];
    for &i in order {
        let request = &requests[i];
        let mut best: Option<((u64, u64), usize, u64)> = None;
        for (arena, &size) in sizes.iter().enumerate() {
            if conflicts[i].iter().any(|&c| offsets[c].is_some_and(|(a, _)| a == arena)) {
                continue;
            }
            let offset = first_gap(request, &members[arena]);
            let growth = (offset + request.size).saturating_sub(size);
            let rank = match preference {
                Preference::Oldest => arena as u64,
                Preference::Newest => (sizes.len() - arena) as u64,
                Preference::Smallest => size,
            };
            if (growth == 0 || size + growth <= most)
                && best.is_none_or(|(b, ..)| (growth, rank) < b)
            {
                best = Some(((growth, rank), arena, offset));
            }
        }
        let (arena, offset) = match best {
            Some((_, arena, offset)) => (arena, offset),
            None => {
                sizes.push(0);
                members.push(Vec::new());
                (sizes.len() - 1, 0)
            }
        };
        sizes[arena] = sizes[arena].max(offset + request.size);
        let (start, end) = (request.start, request.end);
        let at = members[arena].partition_point(|placed| placed.offset <= offset);
        members[arena].insert(at, Placed { offset, size: request.size, start, end });
        offsets[i] = Some((arena, offset));
    }
    Arena { sizes, offsets: offsets.into_iter().map(|o| o.unwrap_or((0, 0))).collect() }
}

/// A request that has its place.
struct Placed {
    offset: u64,
    size: u64,
    start: usize,
    end: usize,
}

/// Lowest offset at which nothing that lives at the same time stands, of an arena's `members` in the
/// order of their offsets.
fn first_gap(request: &Request, members: &[Placed]) -> u64 {
    let mut at = 0;
    for placed in members {
        if placed.offset >= at + request.size {
            break;
        }
        if placed.start <= request.end && request.start <= placed.end {
            at = at.max(placed.offset + placed.size);
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_live_together_never_overlap_and_conflicting_ones_never_share() {
        let mut state = 7u64;
        let mut next = |n: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        let mut requests: Vec<Request> = Vec::new();
        for time in 0..200usize {
            let conflicts = (0..if time > 0 { 2 } else { 0 })
                .map(|_| time - 1 - next(time.min(9) as u64) as usize)
                .collect();
            requests.push(Request {
                size: 256 * (1 + next(40)),
                start: time,
                end: time + next(12) as usize,
                conflicts,
            });
        }
        let arena = pack(&requests, 1 << 14);
        for (i, a) in requests.iter().enumerate() {
            assert!(arena.offsets[i].1 + a.size <= arena.sizes[arena.offsets[i].0]);
            assert!(a.conflicts.iter().all(|&c| arena.offsets[c].0 != arena.offsets[i].0));
            for (j, b) in requests.iter().enumerate().skip(i + 1) {
                let together = a.start <= b.end
                    && b.start <= a.end
                    && arena.offsets[i].0 == arena.offsets[j].0;
                let (x, y) = (arena.offsets[i].1, arena.offsets[j].1);
                assert!(!together || x + a.size <= y || y + b.size <= x, "{i} and {j} overlap");
            }
        }
        assert!(arena.sizes.iter().all(|&s| s <= 1 << 14));
    }

    /// A chain of values too large for an arena: each is read by the next step, so two buffers do
    /// for any number.
    #[test]
    fn values_larger_than_an_arena_take_turns() {
        let chain = |i: usize| Request {
            size: 100,
            start: i,
            end: i + 1,
            conflicts: i.checked_sub(1).into_iter().collect(),
        };
        let requests: Vec<Request> = (0..50).map(chain).collect();
        assert_eq!(pack(&requests, 64).sizes, [100, 100]);
        assert_eq!(live_at(&requests, 7), 200);
        assert!(pack(&[], 64).sizes.is_empty());
    }
}
