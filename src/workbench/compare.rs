//! Results beside the reference: how far off, where, and what kind of wrong that is.

use super::expected::Expected;
use super::fault::FaultKind;
use super::strides::Laid;

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

    /// By how much an element may be off.
    pub fn allows(&self, expected: Expected) -> f64 {
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
                    verdict.worst =
                        Some(Worst { error: share * tolerance.relative(), share, row, column });
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
        // Of those that are numbers: others are told beside.
        let off = |&&(row, column): &&(usize, usize)| {
            let at = self.rows.binary_search(&row).unwrap_or_default();
            let expected = self.expected[at][column];
            let found = self.values[row * self.width() + column];
            (found - expected.value).abs() / tolerance.allows(expected)
        };
        let worst = wrong.iter().max_by(|a, b| off(a).total_cmp(&off(b)));
        let Some(&(row, column)) = worst else { return };
        let at = self.rows.binary_search(&row).unwrap_or_default();
        let found = self.values[row * self.width() + column];
        let [found, expected] = apart(found, self.expected[at][column].value);
        let seen = format!(
            "{} of {} elements; worst {} = {found} instead of {expected}",
            wrong.len(),
            self.all(),
            self.place(row, column),
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

    /// Whether all of these are in a few last rows or columns, by no chance, and which.
    fn edge(&self, elements: &[(usize, usize)]) -> Option<String> {
        let width = self.width();
        // Of huge results some rows are compared, from the first to the last.
        let (rows, columns) = (self.rows.last().map_or(0, |row| row + 1), width);
        let first_row = elements.iter().map(|(row, _)| *row).min()?;
        let first_column = elements.iter().map(|(_, column)| *column).min()?;
        let last = |first: usize, all: usize, what: &str| {
            let count = all.saturating_sub(first);
            let share = count as f64 / all.max(1) as f64;
            let by_chance = share.powi(elements.len().min(1 << 20) as i32);
            (first > 0 && 2 * count < all && by_chance < 0.02).then(|| match count {
                1 => format!("all in the last {what}"),
                count => format!("all in the last {count} {what}s"),
            })
        };
        last(first_row, rows, "row").or_else(|| last(first_column, columns, "column"))
    }

    /// Whether row 0 has none of these, and most other rows have, so many that it is no chance.
    fn first_row_alone(&self, wrong: &[(usize, usize)]) -> bool {
        let rows = self.rows.len();
        let mut with: Vec<usize> = wrong.iter().map(|(row, _)| *row).collect();
        with.dedup();
        let most = rows > 2 && 10 * with.len() >= 8 * (rows - 1);
        let others = (rows.saturating_sub(1) * self.width()).max(1);
        most && with.first().is_some_and(|&row| row > 0)
            && is_no_chance(wrong.len(), others, self.width())
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
        let entry = rows * self.width();
        entries.first() == Some(&1)
            && entries.len() == batch - 1
            && is_no_chance(wrong.len(), (batch - 1) * entry, entry)
    }

    /// How all elements came to where they are, if they belong elsewhere.
    fn moved(&self, wrong: &[(usize, usize)], tolerance: Tolerance) -> Option<String> {
        let width = self.width();
        let elements: usize = self.extents.iter().product();
        // Where some rows alone are looked at, nobody knows what lies between.
        if self.rows.len() * width != elements || self.values.len() < elements {
            return None;
        }
        let expected: Vec<(f64, f64)> =
            self.expected.iter().flatten().map(|e| (e.value, tolerance.allows(*e))).collect();
        let wrong: Vec<usize> = wrong.iter().map(|(row, column)| row * width + column).collect();
        let laid = Laid {
            extents: self.extents,
            values: &self.values[..elements],
            expected: &expected,
            written: self.written,
            wrong: &wrong,
        };
        if expected.len() != elements { None } else { laid.explanation() }
    }
}

/// Whether what is said of wrong results tells where they are, and not why.
pub(super) fn is_of_places_alone(what: &str) -> bool {
    what.contains("; all in the last") || what.ends_with("the others are not")
}

/// Whether `right` elements that are right, where `wrong` of `others` are not, are so by no chance.
fn is_no_chance(wrong: usize, others: usize, right: usize) -> bool {
    let share = (wrong as f64 / others.max(1) as f64).min(1.0 - 1e-9);
    (1.0 - share).powi(right.min(1 << 20) as i32) < 1e-4
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

/// Two numbers with six digits, or with as many as tell them apart.
pub(super) fn apart(a: f64, b: f64) -> [String; 2] {
    const MOST: usize = 17;
    let all = |digits| [a, b].map(|value| short(value, digits));
    let told = (6..MOST).map(all).find(|[a, b]| a != b);
    told.unwrap_or_else(|| all(if a == b { 6 } else { MOST }))
}

/// A number with so many digits.
fn short(value: f64, digits: usize) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-3..1e6).contains(&size) {
        let text = format!("{value:.digits$}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        return text.to_string();
    }
    format!("{value:.*e}", digits - 1)
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
    fn numbers_have_as_many_digits_as_tell_them_apart() {
        for (a, b, expected) in [
            (0.25, 0.5, ["0.25", "0.5"]),
            (1.0, 1.0, ["1", "1"]),
            (1.0 / 37.0, 1.0 / 37.0 + 2e-9, ["0.027027027", "0.027027029"]),
            (1e-9, 1.000000001e-9, ["1.000000000e-9", "1.000000001e-9"]),
            (f64::from(0.1f32), 0.1, ["0.100000001", "0.1"]),
        ] {
            assert_eq!(apart(a, b), expected);
        }
        let [a, b] = apart(1.0, 1.0 + f64::EPSILON);
        assert_ne!(a, b);
    }

    #[test]
    fn kinds_of_wrong() {
        assert!(said(|_| ()).is_empty());
        let one = said(|values| values[19] += 1.0);
        assert!(one[0].0 == FaultKind::WrongValues && one[0].1.contains("y[0, 2, 3]"), "{one:?}");
        let both = said(|values| {
            values[3] = f64::NAN;
            values[9] += 3.0;
        });
        assert!(both[1].1.contains("1 of 48 elements; worst y[0, 1, 1] ="), "{both:?}");
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
