//! Results beside the reference: how far off, where, and what kind of wrong that is.

use super::expected::Expected;
use super::fault::FaultKind;

/// How far results may be off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    /// In parts of what was added up.
    pub of_scale: f64,
    /// In parts of the result itself, which is rounded as it is stored.
    pub of_value: f64,
    /// By which the smallest numbers may be off.
    pub least: f64,
}

impl Tolerance {
    /// What is allowed of a result that nothing cancels in.
    pub fn relative(&self) -> f64 {
        self.of_scale + self.of_value
    }

    fn allows(&self, expected: Expected) -> f64 {
        let scale = expected.scale.max(expected.value.abs());
        self.of_scale * scale + self.of_value * expected.value.abs() + self.least
    }
}

/// The element that is off by most.
#[derive(Clone, Debug)]
pub(super) struct Worst {
    /// Relative to what was added up.
    pub error: f64,
    /// Of what is allowed.
    pub share: f64,
    pub row: usize,
    pub column: usize,
    pub found: f64,
    pub expected: f64,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict {
    pub worst: Option<Worst>,
    pub faults: Vec<(FaultKind, String)>,
    /// Elements that are finite where the reference is not.
    pub swallowed: usize,
}

/// Results of one output, row by row.
pub(super) struct Found<'a> {
    pub name: &'a str,
    /// Extents of the output.
    pub extents: &'a [usize],
    /// The rows that are compared, with what they should be.
    pub rows: &'a [usize],
    pub expected: &'a [Vec<Expected>],
    pub values: &'a [f64],
    /// Elements that somebody wrote; all, where nobody knows.
    pub written: Option<&'a [bool]>,
    /// Whether others may have been left to workgroups that were not executed.
    pub in_part: bool,
}

impl Found<'_> {
    fn width(&self) -> usize {
        self.extents.last().copied().unwrap_or(1).max(1)
    }

    /// An element as people write it: `y[3, 5]`.
    fn place(&self, row: usize, column: usize) -> String {
        place(self.name, self.extents, row, column)
    }

    /// Compares.
    pub fn verdict(&self, tolerance: Tolerance) -> Verdict {
        let width = self.width();
        let mut verdict = Verdict::default();
        let (mut wrong, mut unwritten, mut infinite) = (Vec::new(), Vec::new(), Vec::new());
        for (&row, expected) in self.rows.iter().zip(self.expected) {
            for (column, &expected) in expected.iter().enumerate() {
                let at = row * width + column;
                if self.written.is_some_and(|written| !written[at]) {
                    if !self.in_part {
                        unwritten.push((row, column));
                    }
                    continue;
                }
                let found = self.values[at];
                if !expected.value.is_finite() {
                    verdict.swallowed += usize::from(found.is_finite());
                    continue;
                }
                let allowed = tolerance.allows(expected);
                let off = (found - expected.value).abs();
                if !found.is_finite() {
                    infinite.push((row, column));
                } else if off > allowed {
                    wrong.push((row, column));
                }
                let share = if off.is_finite() { off / allowed } else { f64::INFINITY };
                if verdict.worst.as_ref().is_none_or(|worst| share > worst.share) {
                    verdict.worst = Some(Worst {
                        error: share * tolerance.relative(),
                        share,
                        row,
                        column,
                        found,
                        expected: expected.value,
                    });
                }
            }
        }
        self.add_unwritten(&unwritten, &mut verdict);
        self.add_infinite(&infinite, &mut verdict);
        self.add_wrong(&wrong, tolerance, &mut verdict);
        verdict
    }

    fn all(&self) -> usize {
        self.rows.len() * self.width()
    }

    fn add_unwritten(&self, unwritten: &[(usize, usize)], verdict: &mut Verdict) {
        let Some(&(row, column)) = unwritten.first() else { return };
        let edge = self.edge(unwritten).map(|edge| format!(", {edge}")).unwrap_or_default();
        let what = format!(
            "{} of {} elements, first {}{edge}",
            unwritten.len(),
            self.all(),
            self.place(row, column)
        );
        verdict.faults.push((FaultKind::NotWritten, what));
    }

    fn add_infinite(&self, infinite: &[(usize, usize)], verdict: &mut Verdict) {
        let Some(&(row, column)) = infinite.first() else { return };
        let value = self.values[row * self.width() + column];
        let what = format!(
            "{} of {} elements, first {} = {value}",
            infinite.len(),
            self.all(),
            self.place(row, column)
        );
        verdict.faults.push((FaultKind::NotFinite, what));
    }

    fn add_wrong(&self, wrong: &[(usize, usize)], tolerance: Tolerance, verdict: &mut Verdict) {
        let (Some(worst), false) = (&verdict.worst, wrong.is_empty()) else { return };
        let seen = format!(
            "{} of {} elements; worst {} = {} instead of {}",
            wrong.len(),
            self.all(),
            self.place(worst.row, worst.column),
            short(worst.found),
            short(worst.expected)
        );
        let (kind, why) = match (self.moved(wrong, tolerance), self.edge(wrong)) {
            (Some(why), _) => (FaultKind::WrongStride, why),
            (None, Some(edge)) => (FaultKind::RaggedEdge, edge),
            (None, None) if self.first_row_alone(wrong) => {
                (FaultKind::WrongStride, "the first row is right, the others are not".to_string())
            }
            (None, None) if self.first_entry_alone(wrong) => (
                FaultKind::WrongStride,
                "the first entry of the batch is right, the others are not".to_string(),
            ),
            (None, None) => (FaultKind::WrongValues, String::new()),
        };
        let what = if why.is_empty() { seen } else { format!("{seen}; {why}") };
        verdict.faults.push((kind, what));
    }

    /// Whether all of these are in a few last rows or columns, and which.
    fn edge(&self, elements: &[(usize, usize)]) -> Option<String> {
        let width = self.width();
        let (rows, columns) = (self.rows.len(), width);
        let first_row = elements.iter().map(|(row, _)| *row).min()?;
        let first_column = elements.iter().map(|(_, column)| *column).min()?;
        let last = |first: usize, all: usize, what: &str| {
            let count = all.saturating_sub(first);
            (first > 0 && 2 * count < all).then(|| match count {
                1 => format!("all in the last {what}"),
                count => format!("all in the last {count} {what}s"),
            })
        };
        last(first_row, rows, "row").or_else(|| last(first_column, columns, "column"))
    }

    /// Whether row 0 has none of these, and most other rows have.
    fn first_row_alone(&self, wrong: &[(usize, usize)]) -> bool {
        let rows = self.rows.len();
        let mut with: Vec<usize> = wrong.iter().map(|(row, _)| *row).collect();
        with.dedup();
        rows > 2 && with.first().is_some_and(|&row| row > 0) && 10 * with.len() >= 8 * (rows - 1)
    }

    /// Whether the first entry of a batch has none of these, and each other one has.
    fn first_entry_alone(&self, wrong: &[(usize, usize)]) -> bool {
        let [batch, inner @ .., _] = self.extents else { return false };
        let rows: usize = inner.iter().product();
        if *batch < 2 || rows < 2 || self.rows.len() != batch * rows {
            return false;
        }
        let mut entries: Vec<usize> = wrong.iter().map(|(row, _)| row / rows).collect();
        entries.dedup();
        entries.first() == Some(&1) && entries.len() == batch - 1
    }

    /// Whether wrong elements hold what belongs elsewhere, and where.
    fn moved(&self, wrong: &[(usize, usize)], tolerance: Tolerance) -> Option<String> {
        if wrong.len() < 4 {
            return None;
        }
        let width = self.width();
        let mut known: Vec<(f64, usize, f64)> =
            self.rows
                .iter()
                .zip(self.expected)
                .flat_map(|(&row, expected)| {
                    expected.iter().enumerate().map(move |(column, e)| {
                        (e.value, row * width + column, tolerance.allows(*e))
                    })
                })
                .filter(|(value, ..)| value.is_finite())
                .collect();
        known.sort_by(|a, b| a.0.total_cmp(&b.0));
        let owner = |&(row, column): &(usize, usize)| {
            let found = self.values[row * width + column];
            let at = known.partition_point(|(value, ..)| *value < found);
            let near = known[at.saturating_sub(1)..(at + 1).min(known.len())].iter();
            near.filter(|(value, _, allowed)| (value - found).abs() <= *allowed)
                .map(|(_, other, _)| *other)
                .find(|&other| other != row * width + column)
        };
        let moved: Vec<(usize, usize)> =
            wrong.iter().filter_map(|at| Some((at.0 * width + at.1, owner(at)?))).collect();
        // Many that hold one other's value were not moved: they are all alike.
        let mut owners: Vec<usize> = moved.iter().map(|(_, owner)| *owner).collect();
        owners.sort_unstable();
        owners.dedup();
        if 10 * moved.len() < 9 * wrong.len() || 2 * owners.len() < moved.len() {
            return None;
        }
        let (at, owner) = *moved.first()?;
        Some(format!(
            "{} holds what belongs to {}",
            self.place(at / width, at % width),
            self.place(owner / width, owner % width)
        ))
    }
}

/// `y[1, 2, 3]`.
pub(super) fn place(name: &str, extents: &[usize], row: usize, column: usize) -> String {
    let mut indices = vec![column];
    let mut rest = row;
    for &extent in extents.iter().rev().skip(1) {
        indices.push(rest % extent.max(1));
        rest /= extent.max(1);
    }
    indices.reverse();
    let indices: Vec<String> = indices.iter().map(usize::to_string).collect();
    format!("{name}[{}]", indices.join(", "))
}

/// A number with six digits.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e6).contains(&size) {
        let text = format!("{value:.6}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        return text.to_string();
    }
    format!("{value:.5e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: Tolerance = Tolerance { of_scale: 1e-6, of_value: 0.0, least: 1e-30 };

    /// What is said of a 6 x 8 matrix after `spoil`.
    fn said(spoil: impl Fn(&mut [f64])) -> Vec<(FaultKind, String)> {
        let value = |i: usize| ((i * 37 + 11) % 101) as f64 / 7.0;
        let expected: Vec<Vec<Expected>> = (0..6usize)
            .map(|row| {
                let one = |column: usize| {
                    let value = value(row * 8 + column);
                    Expected { value, scale: value.abs() }
                };
                (0..8).map(one).collect()
            })
            .collect();
        let mut values: Vec<f64> = (0..48).map(value).collect();
        spoil(&mut values);
        let found = Found {
            name: "y",
            extents: &[2, 3, 8],
            rows: &[0, 1, 2, 3, 4, 5],
            expected: &expected,
            values: &values,
            written: None,
            in_part: false,
        };
        found.verdict(TOLERANCE).faults
    }

    #[test]
    fn kinds_of_wrong() {
        assert!(said(|_| ()).is_empty());
        let one = said(|values| values[19] += 1.0);
        assert!(one[0].0 == FaultKind::WrongValues && one[0].1.contains("y[0, 2, 3]"), "{one:?}");
        let edge = said(|values| values[40..].iter_mut().for_each(|v| *v = 0.5));
        assert_eq!(edge[0].0, FaultKind::RaggedEdge, "{edge:?}");
        assert!(edge[0].1.contains("all in the last row"), "{edge:?}");
        let columns = said(|v| (0..6).for_each(|row| v[row * 8 + 7] = -1.0));
        assert!(columns[0].1.contains("all in the last column"), "{columns:?}");
        let stride = said(|v| {
            let old = v.to_vec();
            (8..48).for_each(|i| v[i] = old[(i / 8 * 7) + i % 8]);
        });
        assert_eq!(stride[0].0, FaultKind::WrongStride, "{stride:?}");
        let nan = said(|v| v[3] = f64::NAN);
        assert_eq!(nan[0].0, FaultKind::NotFinite);
        let entries = said(|v| v[24..].iter_mut().for_each(|v| *v = *v * 1.7 + 100.0));
        assert!(entries[0].1.contains("first entry of the batch"), "{entries:?}");
        let rows = said(|v| v[8..].iter_mut().for_each(|v| *v = *v * 1.7 + 100.0));
        assert_eq!(rows[0].0, FaultKind::WrongStride, "{rows:?}");
    }
}
