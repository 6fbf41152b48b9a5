//! Results that lie in other places than they should: one explanation for all of them, which is no
//! chance.

/// An output beside what it should be, element by element.
pub(super) struct Laid<'a> {
    pub extents: &'a [usize],
    pub values: &'a [f64],
    /// What each should be, and by how much it may be off.
    pub expected: &'a [(f64, f64)],
    /// Those that somebody wrote.
    pub written: Option<&'a [bool]>,
    /// Those that are not what they should be.
    pub wrong: &'a [usize],
}

/// Where values may be from.
#[derive(Clone, Copy)]
enum Move {
    /// Rows of so many elements were put so far apart.
    Put { width: usize, stride: usize },
    /// Or taken from places so far apart.
    Taken { width: usize, stride: usize },
    /// Rows and columns were exchanged.
    Transposed { rows: usize },
    /// All by so much.
    Shifted(isize),
}

/// Explanations that are tried are some thousands: by chance one of them must be rarer than that.
const CHANCE: f64 = -30.0;

impl Laid<'_> {
    /// How all elements came to where they are, in words.
    pub fn explanation(&self) -> Option<String> {
        const FEWEST: usize = 4;
        if self.wrong.len() < FEWEST {
            return None;
        }
        let all = self.expected.len();
        let mut inner = 1;
        let mut moves = Vec::new();
        for (axis, &extent) in self.extents.iter().enumerate().skip(1).rev() {
            inner *= extent;
            let rows = all / inner.max(1);
            if inner == 0 || rows < 2 {
                continue;
            }
            if axis + 1 == self.extents.len() && extent > 1 {
                moves.push((Move::Transposed { rows }, "the result lay transposed".to_string()));
            }
            let what = if axis + 1 == self.extents.len() { "rows" } else { "entries" };
            for stride in (1..=2 * inner).filter(|&stride| stride != inner) {
                let told = format!("{what} lay {stride} elements apart instead of {inner}");
                moves.push((Move::Put { width: inner, stride }, told.clone()));
                moves.push((Move::Taken { width: inner, stride }, told));
            }
        }
        let last = self.extents.last().copied().unwrap_or(1) as isize;
        for shift in (1..=2 * last).flat_map(|by| [by, -by]) {
            let told = format!(
                "each element lay {} {} its place",
                shift.abs(),
                match shift > 0 {
                    true => "before",
                    false => "behind",
                }
            );
            moves.push((Move::Shifted(shift), told));
        }
        let mut sorted: Vec<f64> =
            self.expected.iter().map(|(value, _)| *value).filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let found = moves.into_iter().find(|(one, _)| self.explains(*one, &sorted));
        found.map(|(_, told)| format!("right if {told}"))
    }

    /// Whether every element that somebody wrote is what a move puts there, and is so by no chance.
    fn explains(&self, one: Move, sorted: &[f64]) -> bool {
        let (mut chance, mut told, mut wrong) = (0.0, 0, self.wrong.iter().peekable());
        for (at, &value) in self.values.iter().enumerate() {
            let is_wrong = wrong.next_if(|&&other| other == at).is_some();
            if self.written.is_some_and(|written| !written[at]) {
                continue;
            }
            let (mut candidates, mut fits) = (0, false);
            self.owners(one, at, &mut |owner| {
                let (expected, allowed) = self.expected[owner];
                candidates += 1;
                fits |= match expected.is_finite() {
                    true => (value - expected).abs() <= allowed,
                    false => !value.is_finite(),
                };
            });
            if !fits && (is_wrong || candidates > 0) {
                return false;
            }
            if candidates == 0 {
                continue;
            }
            told += 1;
            if is_wrong {
                // How many of all would have done.
                let allowed = self.expected[at].1;
                let near = sorted.partition_point(|other| *other <= value + allowed)
                    - sorted.partition_point(|other| *other < value - allowed);
                let share = near as f64 / sorted.len().max(1) as f64;
                let by_chance = 1.0 - (1.0 - share).powi(candidates);
                chance += by_chance.clamp(1e-9, 1.0).ln();
            }
        }
        chance < CHANCE && 2 * told >= self.expected.len()
    }

    /// The elements that may have come to a place.
    fn owners(&self, one: Move, at: usize, tell: &mut dyn FnMut(usize)) {
        let all = self.expected.len();
        match one {
            Move::Put { width, stride } => {
                // Rows that reach it.
                let rows = all / width;
                let first = (at + 1).saturating_sub(width).div_ceil(stride);
                for row in first..rows {
                    if row * stride > at {
                        break;
                    }
                    tell(row * width + at - row * stride);
                }
            }
            Move::Taken { width, stride } => {
                let from = at / width * stride + at % width;
                if from < all {
                    tell(from);
                }
            }
            Move::Transposed { rows } => {
                let width = all / rows;
                let (column, row) = (at / rows, at % rows);
                if column < width {
                    tell(row * width + column);
                }
            }
            Move::Shifted(shift) => {
                if let Some(from) = at.checked_add_signed(shift).filter(|&from| from < all) {
                    tell(from);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a 12 x 10 matrix of random numbers after `spoil`.
    fn said(allowed: f64, spoil: impl Fn(&mut [f64], &[f64])) -> Option<String> {
        let value = |at: usize| super::super::spec::noise("m", at) * 10.0;
        let expected: Vec<(f64, f64)> = (0..120).map(|at| (value(at), allowed)).collect();
        let right: Vec<f64> = (0..120).map(value).collect();
        let mut values = right.clone();
        spoil(&mut values, &right);
        let wrong: Vec<usize> =
            (0..120).filter(|&at| (values[at] - right[at]).abs() > allowed).collect();
        let extents = &[3, 4, 10];
        let laid =
            Laid { extents, values: &values, expected: &expected, written: None, wrong: &wrong };
        laid.explanation()
    }

    #[test]
    fn what_lies_elsewhere_is_told_with_how() {
        let put = said(1e-4, |v, old| {
            for (at, value) in old.iter().enumerate() {
                v[at / 10 * 9 + at % 10] = *value;
            }
            v[109..].fill(1e3);
        });
        // The last ones are no such thing.
        assert_eq!(put, None);
        let put = said(1e-4, |v, old| {
            (0..108).for_each(|at| v[at] = old[at / 9 * 10 + at % 9]);
            v[108] = old[119];
        });
        assert_eq!(put.as_deref(), Some("right if rows lay 9 elements apart instead of 10"));
        let taken = said(1e-4, |v, old| {
            (0..120).for_each(|at| v[at] = old[at / 10 * 8 + at % 10]);
        });
        assert_eq!(taken.as_deref(), Some("right if rows lay 8 elements apart instead of 10"));
        let entries = said(1e-4, |v, old| {
            (0..120).for_each(|at| v[at] = old[at / 40 * 30 + at % 40]);
        });
        assert_eq!(
            entries.as_deref(),
            Some("right if entries lay 30 elements apart instead of 40")
        );
        let transposed = said(1e-4, |v, old| {
            (0..120).for_each(|at| v[at] = old[at % 12 * 10 + at / 12]);
        });
        assert_eq!(transposed.as_deref(), Some("right if the result lay transposed"));
        let shifted = said(1e-4, |v, old| (0..119).for_each(|at| v[at] = old[at + 1]));
        assert_eq!(shifted.as_deref(), Some("right if each element lay 1 before its place"));
    }

    /// Where much is allowed, something fits always.
    #[test]
    fn chance_explains_nothing() {
        let other = |at: usize| super::super::spec::noise("other", at) * 10.0;
        for allowed in [1e-4, 0.1, 1.0, 3.0, 8.0] {
            let random = said(allowed, |v, _| (0..120).for_each(|at| v[at] = other(at)));
            assert_eq!(random, None, "{allowed}");
            let few = said(allowed, |v, _| (0..120).step_by(20).for_each(|at| v[at] = other(at)));
            assert_eq!(few, None, "{allowed}");
            let alike = said(allowed, |v, _| v[10..].fill(0.25));
            assert_eq!(alike, None, "{allowed}");
        }
    }
}
