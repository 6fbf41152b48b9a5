//! Packing of short-lived values into few buffers.

/// A value that needs `size` bytes from step `start` to step `end` (inclusive) and must not share a buffer with `conflicts`
/// (numbers of other requests), because one kernel reads the one and writes the other.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub size: u64,
    pub start: usize,
    pub end: usize,
    pub conflicts: Vec<usize>,
}

/// The answer: sizes of the arenas, and for every request its arena and byte offset.
pub(super) struct Arena {
    pub sizes: Vec<u64>,
    pub offsets: Vec<(usize, u64)>,
}

/// Places the largest requests first, each where the arenas grow least; no arena exceeds `most` bytes unless one request alone
/// does.
pub(super) fn pack(requests: &[Request], most: u64) -> Arena {
    let mut conflicts: Vec<Vec<usize>> = requests.iter().map(|r| r.conflicts.clone()).collect();
    for (i, request) in requests.iter().enumerate() {
        for &other in &request.conflicts {
            conflicts[other].push(i);
        }
    }
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].size), i));
    let mut sizes: Vec<u64> = Vec::new();
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut offsets: Vec<Option<(usize, u64)>> = vec![None; requests.len()];
    for i in order {
        let request = &requests[i];
        let mut best: Option<(u64, usize, u64)> = None;
        for (arena, &size) in sizes.iter().enumerate() {
            if conflicts[i].iter().any(|&c| offsets[c].is_some_and(|(a, _)| a == arena)) {
                continue;
            }
            let offset = first_gap(request, arena, requests, &members, &offsets);
            let growth = (offset + request.size).saturating_sub(size);
            if size + growth <= most && best.is_none_or(|(g, ..)| growth < g) {
                best = Some((growth, arena, offset));
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
        members[arena].push(i);
        offsets[i] = Some((arena, offset));
    }
    Arena { sizes, offsets: offsets.into_iter().map(|o| o.unwrap_or((0, 0))).collect() }
}

/// Lowest offset in `arena` at which nothing that lives at the same time stands.
fn first_gap(
    request: &Request,
    arena: usize,
    requests: &[Request],
    members: &[Vec<usize>],
    offsets: &[Option<(usize, u64)>],
) -> u64 {
    let mut taken: Vec<(u64, u64)> = members[arena]
        .iter()
        .filter(|&&m| requests[m].start <= request.end && request.start <= requests[m].end)
        .filter_map(|&m| offsets[m].map(|(_, offset)| (offset, offset + requests[m].size)))
        .collect();
    taken.sort_unstable();
    let mut at = 0;
    for (start, end) in taken {
        if start >= at + request.size {
            break;
        }
        at = at.max(end);
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
            let conflicts = (0..if time > 0 { 2 } else { 0 }).map(|_| time - 1 - next(time.min(9) as u64) as usize).collect();
            requests.push(Request { size: 256 * (1 + next(40)), start: time, end: time + next(12) as usize, conflicts });
        }
        let arena = pack(&requests, 1 << 14);
        for (i, a) in requests.iter().enumerate() {
            assert!(arena.offsets[i].1 + a.size <= arena.sizes[arena.offsets[i].0]);
            assert!(a.conflicts.iter().all(|&c| arena.offsets[c].0 != arena.offsets[i].0));
            for (j, b) in requests.iter().enumerate().skip(i + 1) {
                let together = a.start <= b.end && b.start <= a.end && arena.offsets[i].0 == arena.offsets[j].0;
                let (x, y) = (arena.offsets[i].1, arena.offsets[j].1);
                assert!(!together || x + a.size <= y || y + b.size <= x, "{i} and {j} overlap");
            }
        }
        assert!(arena.sizes.iter().all(|&s| s <= 1 << 14));
    }
}
