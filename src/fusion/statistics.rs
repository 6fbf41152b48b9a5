//! What is kept of a layer's inputs: the inputs themselves while they are few, the sums of their
//! outer products when they are many.

use faer::Mat;

/// Inputs of one layer (or of several that read the same), as one concept has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    width: usize,
    rows: u64,
    kept: Kept,
}

#[derive(Clone, Debug, PartialEq)]
enum Kept {
    /// `[rows, width]`, row-major.
    Samples(Vec<f32>),
    /// The lower triangle of X^T X by rows: element (i, j), j <= i, at i (i + 1) / 2 + j.
    Sums(Vec<f64>),
}

/// Inputs ready for computation.
#[derive(Clone, Debug)]
pub enum Moments {
    /// X `[rows, width]`.
    Samples(Mat<f64>),
    /// X^T X `[width, width]`.
    Gram(Mat<f64>),
}

impl Statistics {
    /// Of no inputs yet.
    pub fn new(width: usize) -> Statistics {
        Statistics { width, rows: 0, kept: Kept::Samples(Vec::new()) }
    }

    /// Channels of the inputs.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Inputs that went in.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The inputs `[rows, width]` themselves, while they are kept.
    pub fn samples(&self) -> Option<&[f32]> {
        match &self.kept {
            Kept::Samples(values) => Some(values),
            Kept::Sums(_) => None,
        }
    }

    /// The lower triangle of the sums by rows, once inputs are no longer kept.
    pub fn sums(&self) -> Option<&[f64]> {
        match &self.kept {
            Kept::Samples(_) => None,
            Kept::Sums(values) => Some(values),
        }
    }

    pub(super) fn from_samples(width: usize, samples: Vec<f32>) -> Statistics {
        Statistics {
            width,
            rows: (samples.len() / width.max(1)) as u64,
            kept: Kept::Samples(samples),
        }
    }

    pub(super) fn from_sums(width: usize, rows: u64, sums: Vec<f64>) -> Statistics {
        Statistics { width, rows, kept: Kept::Sums(sums) }
    }

    /// Adds inputs `[.., width]`. They are kept as they are while that is smaller than their sums:
    /// up to `width` of them.
    pub fn push(&mut self, inputs: &[f32]) {
        self.rows += (inputs.len() / self.width.max(1)) as u64;
        if let Kept::Samples(values) = &mut self.kept {
            values.extend_from_slice(inputs);
            if self.rows <= self.width as u64 {
                return;
            }
        }
        let (width, fresh) =
            (self.width, if self.sums().is_some() { inputs.to_vec() } else { Vec::new() });
        let sums = match std::mem::replace(&mut self.kept, Kept::Sums(Vec::new())) {
            Kept::Sums(mut sums) => {
                add_outer(&mut sums, &fresh, width);
                sums
            }
            Kept::Samples(values) => {
                let mut sums = vec![0.0; triangle(width)];
                add_outer(&mut sums, &values, width);
                sums
            }
        };
        self.kept = Kept::Sums(sums);
    }

    /// Adds sums that a device made of `rows` inputs: two planes `[2, width, width]` whose sum
    /// counts, below the diagonal.
    pub fn push_planes(&mut self, planes: &[f32], rows: u64) {
        self.rows += rows;
        let width = self.width;
        let (high, low) = planes.split_at(planes.len() / 2);
        let mut sums = match std::mem::replace(&mut self.kept, Kept::Sums(Vec::new())) {
            Kept::Sums(sums) => sums,
            Kept::Samples(values) => {
                let mut sums = vec![0.0; triangle(width)];
                add_outer(&mut sums, &values, width);
                sums
            }
        };
        let lines = high.chunks_exact(width).zip(low.chunks_exact(width));
        let elements =
            lines.enumerate().flat_map(|(i, (high, low))| high.iter().zip(low).take(i + 1));
        for (sum, (high, low)) in sums.iter_mut().zip(elements) {
            *sum += f64::from(*high) + f64::from(*low);
        }
        self.kept = Kept::Sums(sums);
    }

    /// Adds others' inputs, `weight` times, to sums: of those, no inputs are kept.
    pub fn add(&mut self, other: &Statistics, weight: f64) {
        let mut sums = match std::mem::replace(&mut self.kept, Kept::Sums(Vec::new())) {
            Kept::Sums(sums) => sums,
            Kept::Samples(values) => {
                let mut sums = vec![0.0; triangle(self.width)];
                add_outer(&mut sums, &values, self.width);
                sums
            }
        };
        self.rows += other.rows;
        match &other.kept {
            Kept::Sums(values) => {
                sums.iter_mut().zip(values).for_each(|(sum, v)| *sum += weight * v);
            }
            Kept::Samples(values) => {
                let mut own = vec![0.0; triangle(self.width)];
                add_outer(&mut own, values, self.width);
                sums.iter_mut().zip(&own).for_each(|(sum, v)| *sum += weight * v);
            }
        }
        self.kept = Kept::Sums(sums);
    }

    /// Every number is one.
    pub fn is_finite(&self) -> bool {
        match &self.kept {
            Kept::Samples(values) => values.iter().all(|v| v.is_finite()),
            Kept::Sums(values) => values.iter().all(|v| v.is_finite()),
        }
    }

    /// Sum of the squares of all inputs.
    pub fn trace(&self) -> f64 {
        match &self.kept {
            Kept::Samples(values) => values.iter().map(|&v| f64::from(v) * f64::from(v)).sum(),
            Kept::Sums(values) => (0..self.width).filter_map(|i| values.get(triangle(i) + i)).sum(),
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        match &self.kept {
            Kept::Samples(values) => values.len() as u64 * 4,
            Kept::Sums(values) => values.len() as u64 * 8,
        }
    }

    /// What is kept, as f64.
    pub fn moments(&self) -> Moments {
        match &self.kept {
            Kept::Samples(values) => {
                let rows = values.len() / self.width.max(1);
                Moments::Samples(Mat::from_fn(rows, self.width, |i, j| {
                    f64::from(values[i * self.width + j])
                }))
            }
            Kept::Sums(values) => Moments::Gram(symmetric(values, self.width)),
        }
    }
}

/// The matrix `[width, width]` of which `values` holds the lower triangle, row by row. Made in
/// squares, so that what is read along rows is written along columns while both are still near.
fn symmetric(values: &[f64], width: usize) -> Mat<f64> {
    const SIDE: usize = 32;
    let mut whole = Mat::zeros(width, width);
    for top in (0..width).step_by(SIDE) {
        for left in (0..=top).step_by(SIDE) {
            for i in top..width.min(top + SIDE) {
                let row = &values[triangle(i)..triangle(i) + i + 1];
                for (j, &value) in row.iter().enumerate().skip(left).take(SIDE) {
                    whole[(i, j)] = value;
                    whole[(j, i)] = value;
                }
            }
        }
    }
    whole
}

/// Elements of a triangle of `n` rows.
pub(super) fn triangle(n: usize) -> usize {
    n * (n + 1) / 2
}

fn add_outer(sums: &mut [f64], inputs: &[f32], width: usize) {
    for row in inputs.chunks_exact(width.max(1)) {
        let mut sums = sums.iter_mut();
        for (i, &a) in row.iter().enumerate() {
            for (&b, sum) in row[..=i].iter().zip(&mut sums) {
                *sum += f64::from(a) * f64::from(b);
            }
        }
    }
}

impl Moments {
    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let (Moments::Samples(held) | Moments::Gram(held)) = self;
        held.nrows() * held.ncols() * size_of::<f64>()
    }

    /// `q` X^T X, for `q` `[rows, width]`.
    pub fn times(&self, q: &Mat<f64>) -> Mat<f64> {
        match self {
            Moments::Samples(x) => (q * x.transpose()) * x,
            Moments::Gram(gram) => q * gram,
        }
    }

    /// `q` X^T X `q`^T, for `q` `[rows, width]`.
    pub fn quadratic(&self, q: &Mat<f64>) -> Mat<f64> {
        match self {
            Moments::Samples(x) => {
                let seen = q * x.transpose();
                &seen * seen.transpose()
            }
            Moments::Gram(gram) => (q * gram) * q.transpose(),
        }
    }

    /// X^T X.
    pub fn into_gram(self) -> Mat<f64> {
        match self {
            Moments::Samples(x) => x.transpose() * &x,
            Moments::Gram(gram) => gram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(rows: usize, width: usize) -> Vec<f32> {
        (0..rows * width).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn inputs_become_sums_when_those_are_smaller() {
        let (width, all) = (5, inputs(9, 5));
        let mut statistics = Statistics::new(width);
        statistics.push(&all[..25]);
        assert_eq!((statistics.rows(), statistics.samples().map(<[f32]>::len)), (5, Some(25)));
        statistics.push(&all[25..40]);
        statistics.push(&all[40..]);
        assert_eq!((statistics.rows(), statistics.sums().map(<[f64]>::len)), (9, Some(15)));
        let expected = Statistics::from_samples(width, all).moments().into_gram();
        assert!((statistics.moments().into_gram() - &expected).norm_max() < 1e-12);
        let trace: f64 = (0..width).map(|i| expected[(i, i)]).sum();
        assert!((statistics.trace() - trace).abs() < 1e-12);
    }

    #[test]
    fn statistics_are_added_by_weight() {
        let (few, many) = (inputs(3, 4), inputs(9, 4));
        let mut many_sums = Statistics::new(4);
        many_sums.push(&many);
        let few = Statistics::from_samples(4, few);
        let mut total = Statistics::new(4);
        total.add(&few, 2.0);
        total.add(&many_sums, 1.0);
        let expected = few.moments().into_gram() * faer::Scale(2.0)
            + Statistics::from_samples(4, many).moments().into_gram();
        assert!((total.moments().into_gram() - &expected).norm_max() < 1e-12);
        assert_eq!((total.rows(), total.samples()), (12, None));
    }

    #[test]
    fn planes_of_a_device_are_added_below_the_diagonal() {
        let mut statistics = Statistics::new(2);
        statistics.push_planes(&[1.0, 99.0, 2.0, 3.0, 0.25, 99.0, 0.5, 0.125], 7);
        assert_eq!((statistics.sums(), statistics.rows()), (Some(&[1.25, 2.5, 3.125][..]), 7));
        assert_eq!(
            statistics.moments().into_gram(),
            Mat::from_fn(2, 2, |i, j| [[1.25, 2.5], [2.5, 3.125]][i][j])
        );
    }

    #[test]
    fn both_kinds_agree() {
        let samples = Statistics::from_samples(4, inputs(3, 4)).moments();
        let gram = Moments::Gram(samples.clone().into_gram());
        let q = Mat::from_fn(2, 4, |i, j| (i + 2 * j) as f64);
        assert!((samples.times(&q) - gram.times(&q)).norm_max() < 1e-12);
        assert!((samples.quadratic(&q) - gram.quadratic(&q)).norm_max() < 1e-12);
    }
}
